//! The header of a manifest.

use csv::StringRecord;
use lowrank::suggest::nearest;
use lowrank::{Error, Subject};

const NAMES: [&str; 5] = ["path", "label", "split", "start", "end"];
const REQUIRED: usize = 2;

/// Which column holds what.
#[derive(Debug)]
pub(super) struct Columns {
    places: [Option<usize>; NAMES.len()],
    /// How many there are.
    pub(super) count: usize,
}

impl Columns {
    /// Reads the header, or says all that is wrong with it.
    pub(super) fn read(header: &StringRecord) -> Result<Self, Vec<Error>> {
        let mut places = [None; NAMES.len()];
        let mut errors = Vec::new();
        for (place, name) in header.iter().enumerate() {
            match NAMES.iter().position(|known| *known == name) {
                Some(column) if places[column].is_some() => {
                    errors.push(Error::new(Subject::Data, "a column twice").found(format!("\"{name}\"")));
                }
                Some(column) => places[column] = Some(place),
                None => errors.push(unknown(name)),
            }
        }
        for (name, place) in NAMES.iter().zip(places).take(REQUIRED) {
            if place.is_none() {
                let error = Error::new(Subject::Data, "a column is missing").expected(format!("\"{name}\""));
                errors.push(
                    error.with_hint("the first line names the columns: path,label and optionally split,start,end"),
                );
            }
        }
        if errors.is_empty() { Ok(Self { places, count: header.len() }) } else { Err(errors) }
    }

    /// The field of `row` under `name`; empty fields are none.
    pub(super) fn get<'r>(&self, row: &'r StringRecord, name: &str) -> Option<&'r str> {
        let column = NAMES.iter().position(|known| *known == name)?;
        row.get(self.places[column]?).filter(|field| !field.is_empty())
    }
}

fn unknown(name: &str) -> Error {
    let error = Error::new(Subject::Data, "unknown column").found(format!("\"{name}\"")).expected(NAMES.join(", "));
    if name.contains([';', '\t']) {
        return error.with_hint("separate the columns with commas");
    }
    match nearest(name, NAMES) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    }
}
