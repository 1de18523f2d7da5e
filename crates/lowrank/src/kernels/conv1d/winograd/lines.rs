//! Between a signal and its lanes: of every four neighbours (`width` values each), one goes to each of four rows.

#![expect(clippy::inline_always, reason = "an instruction set reaches only what is inlined")]

use super::minimal::OUTPUTS;

/// Values behind a line, and behind a row, that copies of a constant size may touch.
pub(super) const SLACK: usize = 16;

/// `rows[i][q·width + ρ] = line[(4q + i)·width + ρ]`; row `i` begins at `i · stride`. Values up to [`SLACK`] behind each
/// end may be overwritten.
#[inline(always)]
pub(super) fn split(line: &[f32], width: usize, rows: &mut [f32], stride: usize, blocks: usize) {
    match width {
        1 => split_single(line, rows, stride, blocks),
        2 => split_by::<2>(line, width, rows, stride, blocks),
        3..=4 => split_by::<4>(line, width, rows, stride, blocks),
        5..=8 => split_by::<8>(line, width, rows, stride, blocks),
        9..=16 => split_by::<16>(line, width, rows, stride, blocks),
        _ => {
            for (at, values) in line.chunks_exact(width).take(OUTPUTS * blocks).enumerate() {
                rows[at % OUTPUTS * stride + at / OUTPUTS * width..][..width].copy_from_slice(values);
            }
        }
    }
}

#[inline(always)]
fn split_single(line: &[f32], rows: &mut [f32], stride: usize, blocks: usize) {
    let (first, rest) = rows.split_at_mut(stride);
    let (second, rest) = rest.split_at_mut(stride);
    let (third, fourth) = rest.split_at_mut(stride);
    let (line, _) = line.as_chunks::<OUTPUTS>();
    let (line, first, second) = (&line[..blocks], &mut first[..blocks], &mut second[..blocks]);
    let (third, fourth) = (&mut third[..blocks], &mut fourth[..blocks]);
    for q in 0..blocks {
        first[q] = line[q][0];
        second[q] = line[q][1];
        third[q] = line[q][2];
        fourth[q] = line[q][3];
    }
}

/// Copies `SIZE` values for the `width` that are meant; what is too much is overwritten by the next copy.
#[inline(always)]
fn split_by<const SIZE: usize>(line: &[f32], width: usize, rows: &mut [f32], stride: usize, blocks: usize) {
    for q in 0..blocks {
        for i in 0..OUTPUTS {
            let values: &[f32; SIZE] = line[(OUTPUTS * q + i) * width..][..SIZE].try_into().expect("the size");
            rows[i * stride + q * width..][..SIZE].copy_from_slice(values);
        }
    }
}

/// The inverse of [`split`].
#[inline(always)]
pub(super) fn merge(rows: &[f32], stride: usize, width: usize, line: &mut [f32], blocks: usize) {
    match width {
        1 => merge_single(rows, stride, line, blocks),
        2 => merge_by::<2>(rows, stride, width, line, blocks),
        3..=4 => merge_by::<4>(rows, stride, width, line, blocks),
        5..=8 => merge_by::<8>(rows, stride, width, line, blocks),
        9..=16 => merge_by::<16>(rows, stride, width, line, blocks),
        _ => {
            for (at, values) in line.chunks_exact_mut(width).take(OUTPUTS * blocks).enumerate() {
                values.copy_from_slice(&rows[at % OUTPUTS * stride + at / OUTPUTS * width..][..width]);
            }
        }
    }
}

#[inline(always)]
fn merge_single(rows: &[f32], stride: usize, line: &mut [f32], blocks: usize) {
    let row = |i: usize| &rows[i * stride..][..blocks];
    let (first, second, third, fourth) = (row(0), row(1), row(2), row(3));
    let (line, _) = line.as_chunks_mut::<OUTPUTS>();
    let line = &mut line[..blocks];
    for q in 0..blocks {
        line[q] = [first[q], second[q], third[q], fourth[q]];
    }
}

#[inline(always)]
fn merge_by<const SIZE: usize>(rows: &[f32], stride: usize, width: usize, line: &mut [f32], blocks: usize) {
    for q in 0..blocks {
        for i in 0..OUTPUTS {
            let values: &[f32; SIZE] = rows[i * stride + q * width..][..SIZE].try_into().expect("the size");
            line[(OUTPUTS * q + i) * width..][..SIZE].copy_from_slice(values);
        }
    }
}
