//! The header of a manifest.

use csv::StringRecord;
use lowrank::suggest::nearest;
use lowrank::{Error, Subject};

const REQUIRED: usize = 2;

/// Which column holds what.
#[derive(Debug)]
pub(super) struct Columns {
    names: [&'static str; 5],
    places: [Option<usize>; 5],
    /// How many there are.
    pub(super) count: usize,
}

impl Columns {
    /// Reads the header, or says all that is wrong with it; `truth` names the column that tells what a recording shows.
    pub(super) fn read(header: &StringRecord, truth: &'static str) -> Result<Self, Vec<Error>> {
        let names = ["path", truth, "split", "start", "end"];
        let mut places = [None; 5];
        let mut errors = Vec::new();
        for (place, name) in header.iter().enumerate() {
            match names.iter().position(|known| *known == name) {
                Some(column) if places[column].is_some() => {
                    errors.push(Error::new(Subject::Data, "a column twice").found(format!("\"{name}\"")));
                }
                Some(column) => places[column] = Some(place),
                None => errors.push(unknown(name, names)),
            }
        }
        for (name, place) in names.iter().zip(places).take(REQUIRED) {
            if place.is_none() {
                let error = Error::new(Subject::Data, "a column is missing").expected(format!("\"{name}\""));
                let columns = format!("path,{truth} and optionally split,start,end");
                errors.push(error.with_hint(format!("the first line names the columns: {columns}")));
            }
        }
        if errors.is_empty() { Ok(Self { names, places, count: header.len() }) } else { Err(errors) }
    }

    /// The field of `row` under `name`; empty fields are none.
    pub(super) fn get<'r>(&self, row: &'r StringRecord, name: &str) -> Option<&'r str> {
        let column = self.names.iter().position(|known| *known == name)?;
        row.get(self.places[column]?).filter(|field| !field.is_empty())
    }
}

fn unknown(name: &str, names: [&str; 5]) -> Error {
    let error = Error::new(Subject::Data, "unknown column").found(format!("\"{name}\"")).expected(names.join(", "));
    if name.contains([';', '\t']) {
        return error.with_hint("separate the columns with commas");
    }
    match nearest(name, names) {
        Some(near) => error.with_hint(format!("did you mean \"{near}\"?")),
        None => error,
    }
}
