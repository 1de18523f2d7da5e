//! Run files: TOML tables checked against [`KEYS`], and the flags that override them.

mod plan;
mod rewrite;
mod toml_value;

use std::path::{Path, PathBuf};

use lowrank::files;
use lowrank::suggest::nearest;
use lowrank::{Error, Result, Subject};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use plan::{Model, RunPlan};

use crate::keys::{KEYS, Key, Section};

/// A run file is a page of text; more is something else.
const MAX_BYTES: u64 = 1 << 20;

/// The settings of a run, each with where it was said.
#[derive(Debug, Default)]
pub struct Settings {
    file: Option<PathBuf>,
    tables: Vec<Section>,
    values: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    section: Section,
    name: String,
    value: Value,
    place: Place,
}

/// Where a setting was said.
#[derive(Debug)]
enum Place {
    /// The run file, at a line and a column.
    File { line: usize, column: usize },
    /// The command line.
    Flag(String),
}

impl Settings {
    /// The settings of a run file, if there is one, with flags over them.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML (every syntax error), or has an unknown table or key, or a value of a
    /// wrong type (all of them).
    pub fn read(file: Option<&Path>, flags: Vec<(&'static Key, Value)>) -> Result<Self> {
        let mut settings = match file {
            Some(path) => {
                let text = files::read_to_string(path, MAX_BYTES)?;
                Self::parse(&text, &path.display().to_string()).map_err(|error| headline(error, path))?
            }
            None => Self::default(),
        };
        settings.file = file.map(Path::to_owned);
        for (key, value) in flags {
            settings.values.retain(|setting| setting.section != key.section || setting.name != key.name);
            settings.push(key.section, key.name, value, Place::Flag(format!("--{}", key.flag())));
        }
        Ok(settings)
    }

    fn parse(text: &str, origin: &str) -> Result<Self> {
        let (document, wrong) = DeTable::parse_recoverable(text);
        let lines = Lines { text, origin };
        let syntax = |error: &toml::de::Error| {
            let place = lines.place(error.span().map_or(0, |span| span.start));
            Error::new(Subject::Config, error.message().replace('\n', ", ")).at(lines.shown(&place))
        };
        Error::all(wrong.iter().map(syntax).collect())?;

        let mut settings = Self::default();
        let mut errors = Vec::new();
        for (name, value) in in_order(document.get_ref()) {
            let section = Section::TABLES.into_iter().find(|section| section.name() == name.get_ref());
            match (section, value.get_ref()) {
                (Some(section), DeValue::Table(table)) => {
                    settings.tables.push(section);
                    for (name, value) in in_order(table) {
                        errors.extend(settings.take(section, name, value, &lines).err());
                    }
                }
                (Some(_), _) => {
                    let error = Error::new(Subject::Config, format!("`{}` is a table", name.get_ref()));
                    let error = error.with_hint(format!("write [{}], and its keys below", name.get_ref()));
                    errors.push(error.at(lines.shown(&lines.place(name.span().start))));
                }
                (None, _) => errors.extend(settings.take(Section::Top, name, value, &lines).err()),
            }
        }
        Error::all(errors)?;
        Ok(settings)
    }

    /// Takes one entry of the file.
    fn take(
        &mut self,
        section: Section,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        lines: &Lines<'_>,
    ) -> Result<()> {
        let (place, name) = (lines.place(name.span().start), name.get_ref().as_ref());
        let at = |error: Error| error.at(lines.shown(&place));
        let key = Key::find(section, name);
        // Which keys of PEFT's are known, and what their values may be, is for the configuration of adapters to say.
        if key.is_none() && section != Section::Lora {
            return Err(at(unknown(section, name, matches!(value.get_ref(), DeValue::Table(_)))));
        }
        let value = toml_value::to_json(value.get_ref()).map_err(|error| at(error.at(format!("`{name}`"))))?;
        if let Some(key) = key.filter(|key| section != Section::Lora && !key.kind.accepts(&value)) {
            let error = Error::new(Subject::Config, format!("wrong value for `{name}`")).found(&value);
            let error = error.expected(key.kind.expected());
            let near = value.as_str().and_then(|word| match key.kind {
                crate::keys::Kind::Word(known) => nearest(word, known.iter().copied()),
                _ => None,
            });
            return Err(at(match near {
                Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
                None => error,
            }));
        }
        self.push(section, name, value, place);
        Ok(())
    }

    fn push(&mut self, section: Section, name: &str, value: Value, place: Place) {
        self.values.push(Setting { section, name: name.to_owned(), value, place });
    }

    fn setting(&self, section: Section, name: &str) -> Option<&Setting> {
        self.values.iter().find(|setting| setting.section == section && setting.name == name)
    }

    /// Whether the table is there, or a flag of it.
    fn has(&self, section: Section) -> bool {
        self.tables.contains(&section) || self.values.iter().any(|setting| setting.section == section)
    }

    /// The keys of a table with their values.
    fn table(&self, section: Section) -> Map<String, Value> {
        let of_table = self.values.iter().filter(|setting| setting.section == section);
        of_table.map(|setting| (setting.name.clone(), setting.value.clone())).collect()
    }

    /// A path: relative to the run file when it says it, to the current directory when a flag does.
    fn path(&self, section: Section, name: &str) -> Option<PathBuf> {
        let setting = self.setting(section, name)?;
        let path = Path::new(setting.value.as_str()?);
        let folder = match setting.place {
            Place::File { .. } => self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")),
            Place::Flag(_) => Path::new(""),
        };
        Some(folder.join(path))
    }

    /// Where a key was said, for messages; the file when it was not.
    fn place(&self, section: Section, name: &str) -> String {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        match (self.setting(section, name).map(|setting| &setting.place), file) {
            (Some(Place::Flag(flag)), _) => flag.clone(),
            (Some(Place::File { line, column }), Some(file)) => format!("{file}:{line}:{column}"),
            (_, Some(file)) => file,
            (_, None) => "the command line".to_owned(),
        }
    }
}

/// The entries of a table as the file has them: in PEFT's patterns, the first match counts.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// An unknown key, with the one that was probably meant.
fn unknown(section: Section, name: &str, is_table: bool) -> Error {
    if section == Section::Top && is_table {
        let error = Error::new(Subject::Config, format!("unknown table [{name}]"));
        let tables = Section::TABLES.map(Section::name);
        return match nearest(name, tables) {
            Some(near) => error.with_hint(format!("did you mean [{near}]?")),
            None => error.with_hint("the tables are [model], [data], [lora] and [train]"),
        };
    }
    let error = Error::new(Subject::Config, format!("unknown key `{name}`"));
    let here = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    if let Some(near) = nearest(name, here) {
        return error.with_hint(format!("did you mean `{near}`?"));
    }
    let elsewhere = nearest(name, KEYS.iter().map(|key| key.name));
    let elsewhere = elsewhere.and_then(|near| KEYS.iter().find(|key| key.name == near));
    match elsewhere.map(|key| (key.section, key.name)) {
        Some((Section::Top, near)) => error.with_hint(format!("`{near}` stands above the first table")),
        Some((section, near)) => error.with_hint(format!("`{near}` belongs to [{}]", section.name())),
        None => error.with_hint("`lowrank train --help` lists the keys"),
    }
}

/// The file in front of "3 errors", whose parts name it themselves.
fn headline(error: Error, path: &Path) -> Error {
    if error.parts().is_empty() { error } else { error.at(path.display()) }
}

/// A text whose positions are told as lines and columns, counted from 1.
struct Lines<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Lines<'_> {
    fn place(&self, position: usize) -> Place {
        let before = self.text.get(..position).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Place::File { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }

    fn shown(&self, place: &Place) -> String {
        match place {
            Place::File { line, column } => format!("{}:{line}:{column}", self.origin),
            Place::Flag(flag) => flag.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
