//! x
use super::{Exit, Failure};
use crate::args::*;
use crate::output::Output;
/// x
pub fn run(_: PlanArgs, _: Output) -> Result<Exit, Failure> { Ok(Exit::Done) }
