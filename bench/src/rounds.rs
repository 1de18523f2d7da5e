//! Peers in turn, all of them in every round.
//!
//! A machine that gets slower or faster while it measures does so for all of them. The order changes from round to round,
//! so that none always follows the same other. The first call of a round does not count where a call takes less than
//! 100 ms: nobody pays for the caches, and the sleeping threads, that the peer before has left. Of short calls the median
//! of several is the round's.

use anyhow::Result;
use lowrank::random::Random;

use crate::peer::{Mode, Peer};
use crate::record::Series;

/// A peer that takes longer than this a call, in milliseconds, is measured a few times only.
const SLOW_MS: f64 = 2000.0;
/// What is said of it.
pub const SLOW: &str = "slower than 2 s a call, 3 rounds";
/// How many times.
const SLOW_ROUNDS: usize = 3;
/// Rounds that are over sooner, in milliseconds, are repeated until they have taken this long, or
const FILL_MS: f64 = 300.0;
/// so many times as often as asked.
const MORE: usize = 4;

/// Measures every peer that takes the mode, `rounds` times or more, after one call that does not count.
pub fn measure(peers: &mut [Box<dyn Peer>], mode: Mode, rounds: usize) -> Result<Vec<Series>> {
    let mut peers: Vec<_> = peers.iter_mut().filter(|peer| peer.takes(mode)).collect();
    let warm: Vec<f64> = peers.iter_mut().map(|peer| peer.run(mode)).collect::<Result<_>>()?;
    let rounds = enough(rounds, warm.iter().sum());
    let mut times = vec![Vec::new(); peers.len()];
    for round in 0..rounds {
        for index in order(peers.len(), round) {
            let (peer, times, warm) = (&mut peers[index], &mut times[index], &warm[index]);
            if *warm > SLOW_MS && round >= SLOW_ROUNDS {
                continue;
            }
            let [rehearsed, measured] = calls(*warm);
            (0..rehearsed).try_for_each(|_| peer.run(mode).map(drop))?;
            let calls: Vec<f64> = (0..measured).map(|_| peer.run(mode)).collect::<Result<_>>()?;
            times.push(median(&calls));
        }
    }
    Ok(peers.iter().zip(times).map(|(peer, times)| Series::new(peer.name(), times)).collect())
}

/// An order of the peers for each round; the same in every run.
fn order(peers: usize, round: usize) -> Vec<usize> {
    let mut random = Random::new(0, "order of the peers", round as u64);
    let mut order: Vec<(u64, usize)> = (0..peers).map(|peer| (random.bits(), peer)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, peer)| peer).collect()
}

/// Calls of a round that do not count, and those that do.
fn calls(call_ms: f64) -> [usize; 2] {
    match call_ms {
        ..7.0 => [1, 5],
        ..20.0 => [1, 3],
        ..100.0 => [1, 1],
        _ => [0, 1],
    }
}

/// Short calls are repeated more often.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive count")]
fn enough(rounds: usize, round_ms: f64) -> usize {
    ((FILL_MS / round_ms.max(0.001)).ceil() as usize).clamp(rounds, rounds * MORE)
}

/// The middle value; the mean of the two middle ones of an even number.
///
/// # Panics
/// When there is no value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(&'static str, Vec<f64>, usize);

    impl Peer for Counter {
        fn name(&self) -> &str {
            self.0
        }

        fn takes(&self, mode: Mode) -> bool {
            mode == Mode::Train
        }

        fn run(&mut self, _mode: Mode) -> Result<f64> {
            self.2 += 1;
            Ok(self.1[(self.2 - 1) % self.1.len()])
        }
    }

    #[test]
    fn a_slow_peer_is_measured_three_times_and_the_others_in_every_round() {
        let mut peers: Vec<Box<dyn Peer>> = vec![
            Box::new(Counter("fast", vec![200.0], 0)),
            Box::new(Counter("slow", vec![9000.0, 2000.0, 4000.0, 3000.0], 0)),
        ];
        let series = measure(&mut peers, Mode::Train, 15).unwrap();
        assert_eq!((series[0].rounds_ms.len(), series[0].median_ms), (15, 200.0));
        assert_eq!((series[1].rounds_ms.len(), series[1].median_ms), (3, 3000.0));
        assert!(measure(&mut peers, Mode::Infer, 15).unwrap().is_empty());
    }

    #[test]
    fn short_rounds_are_repeated() {
        assert_eq!([enough(15, 400.0), enough(15, 10.0), enough(15, 0.0)], [15, 30, 60]);
    }

    #[test]
    fn short_calls_are_measured_more_often() {
        assert_eq!([calls(0.5), calls(12.0), calls(50.0), calls(300.0)], [[1, 5], [1, 3], [1, 1], [0, 1]]);
    }

    #[test]
    fn medians() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }
}
