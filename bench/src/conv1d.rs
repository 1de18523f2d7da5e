//! The layer benchmark, as far as one process with one number of threads goes.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::geometry::Geometry;
use crate::peer::candle::{CANDLE, Candle};
use crate::peer::python::{self, Built, PythonPeer, Server, Shared};
use crate::peer::{Inputs, Mode, Peer, Problem, lowrank, stock};
use crate::record::{Layer, Part};
use crate::roofline::Gauge;
use crate::{machine, rounds, versions};

/// The rank that all peers are measured at.
pub const RANK: usize = 8;
/// The others, for the peers whose time depends on it.
const OTHER_RANKS: [usize; 2] = [4, 32];
/// The layers whose length is swept: channels, kernel, lengths.
const LENGTH_SWEEPS: [(usize, usize, &[usize]); 2] =
    [(64, 3, &[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20]), (256, 7, &[1 << 10, 1 << 12, 1 << 14, 1 << 16])];
const QUICK_SWEEPS: [(usize, usize, &[usize]); 1] = [(64, 3, &[1 << 10, 1 << 15, 1 << 20])];
/// The layer whose rank is swept: channels, kernel, length.
const RANK_SWEEP: (usize, usize, usize) = (256, 3, 1 << 12);
const SWEPT_RANKS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Layers from one measurement of the machine's rates to the next.
const GAUGE_EVERY: usize = 4;

/// What is measured.
pub struct Plan {
    /// The layers.
    pub geometries: Vec<Geometry>,
    /// Threads of every peer.
    pub threads: usize,
    /// Rounds at least.
    pub rounds: usize,
    /// How much of it.
    pub extent: Extent,
}

/// How much is measured beside all peers at one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The other ranks, and the sweeps over length and rank.
    Full,
    /// One short sweep over the length.
    Quick,
    /// Nothing: a further number of threads.
    Layers,
}

/// Runs the plan, and says on stderr where it is.
pub fn measure(plan: &Plan) -> Result<Part> {
    let server = Server::start(plan.threads)?;
    let versions = versions::all(&mut server.borrow_mut())?;
    machine::pin_main();
    let mut bench = Bench { plan, gauge: Gauge::new(), server, measured: 0 };
    let mut layers = Vec::new();
    for geometry in &plan.geometries {
        layers.extend(bench.layer(geometry, RANK, Peers::All)?);
        for rank in OTHER_RANKS.into_iter().filter(|_| plan.extent == Extent::Full) {
            layers.extend(bench.layer(geometry, rank, Peers::Ranked)?);
        }
    }
    let (lengths, ranks) = (bench.lengths()?, bench.ranks()?);
    bench.gauge.sample();
    let ceilings = bench.gauge.ceilings().clone();
    Ok(Part { threads: plan.threads, versions, ceilings, layers, lengths, ranks, steps: Vec::new(), streaming: None })
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// Everyone.
    All,
    /// Those whose time depends on the rank.
    Ranked,
    /// Ours, with the adapter and without.
    Pair,
}

struct Bench<'a> {
    plan: &'a Plan,
    gauge: Gauge,
    server: Shared,
    measured: usize,
}

impl Bench<'_> {
    /// One layer at one rank: inference, and a training step.
    fn layer(&mut self, geometry: &Geometry, rank: usize, who: Peers) -> Result<Vec<Layer>> {
        eprintln!("{} threads, {}, {} samples, r = {rank}", self.plan.threads, geometry.name, geometry.length);
        if self.measured.is_multiple_of(GAUGE_EVERY) {
            self.gauge.sample();
        }
        self.measured += 1;
        let (mut peers, mut marks) = self.peers(geometry, rank, who)?;
        marks.extend(peers.iter().filter_map(|peer| Some((peer.name().to_owned(), peer.mark()?.to_owned()))));
        let measure = |mode| -> Result<Layer> {
            let series = rounds::measure(&mut peers, mode, self.plan.rounds)?;
            let slow = series.iter().filter(|series| series.rounds_ms.len() < self.plan.rounds);
            let mut marks = marks.clone();
            marks.extend(slow.map(|series| (series.peer.clone(), rounds::SLOW.to_owned())));
            Ok(Layer { geometry: geometry.clone(), rank, mode, series, marks })
        };
        let layers = [Mode::Infer, Mode::Train].map(measure).into_iter().collect();
        self.server.borrow_mut().release()?;
        layers
    }

    fn peers(&self, geometry: &Geometry, rank: usize, who: Peers) -> Result<(Vec<Box<dyn Peer>>, Marks)> {
        let problem = Problem::draw(geometry, rank);
        let inputs = Inputs::new(&problem);
        let mut marks = Marks::new();
        let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(lowrank::lora(&problem, &inputs)?)];
        if who != Peers::Ranked {
            peers.push(Box::new(lowrank::without_adapter(&problem, &inputs)));
        }
        if who != Peers::Pair {
            let built = self.server.borrow_mut().layer(geometry, rank)?;
            peers.extend(self.python(&built, who));
        }
        if who == Peers::All {
            peers.push(Box::new(lowrank::full(&problem, &inputs)));
            let burn = stock::weight_space(&problem, &inputs).map(|peer| Box::new(peer) as Box<dyn Peer>);
            let candle = Candle::new(&problem).map(|peer| Box::new(peer) as Box<dyn Peer>);
            for (name, peer) in [(stock::WEIGHT, burn), (CANDLE, candle)] {
                match peer {
                    Ok(peer) => peers.push(peer),
                    Err(reason) => drop(marks.insert(name.to_owned(), reason)),
                }
            }
        }
        Ok((peers, marks))
    }

    fn python(&self, built: &Built, who: Peers) -> Vec<Box<dyn Peer>> {
        let ranked = [python::PEFT, python::WEIGHT];
        let wanted = built.peers.iter().filter(|name| who == Peers::All || ranked.contains(&name.as_str()));
        let modes = |name: &str| match name {
            // The frozen layer's inference is this one's too.
            python::FULL => [Mode::Train].as_slice(),
            _ => [Mode::Infer, Mode::Train].as_slice(),
        };
        let peer = |name: &String| PythonPeer::new(name, built, modes(name), &self.server);
        wanted.map(|name| Box::new(peer(name)) as Box<dyn Peer>).collect()
    }

    fn lengths(&mut self) -> Result<Vec<Layer>> {
        let sweeps = match self.plan.extent {
            Extent::Full => LENGTH_SWEEPS.as_slice(),
            Extent::Quick => QUICK_SWEEPS.as_slice(),
            Extent::Layers => &[],
        };
        let mut layers = Vec::new();
        for (channels, kernel, lengths) in sweeps {
            for length in *lengths {
                layers.extend(self.layer(&Geometry::sweep(*channels, *kernel, *length), RANK, Peers::Pair)?);
            }
        }
        Ok(layers)
    }

    fn ranks(&mut self) -> Result<Vec<Layer>> {
        let (channels, kernel, length) = RANK_SWEEP;
        let mut layers = Vec::new();
        for rank in SWEPT_RANKS.into_iter().filter(|_| self.plan.extent == Extent::Full) {
            layers.extend(self.layer(&Geometry::sweep(channels, kernel, length), rank, Peers::Pair)?);
        }
        Ok(layers)
    }
}

type Marks = BTreeMap<String, String>;
