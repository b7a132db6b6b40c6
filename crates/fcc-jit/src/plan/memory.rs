//! Places in the arena: buffers that are never in use at the same time may share bytes.
use crate::aligned::LINE;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A buffer: its size, and the first and last step that touches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

/// Above this many requests the time that [`largest_first`] takes, their square, would be felt.
const MANY: usize = 4096;

/// An offset for each request, on cache lines, and the size of the whole.
pub(crate) fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    if requests.len() > MANY { in_order_of_time(requests) } else { largest_first(requests) }
}

fn size(r: &Request) -> usize {
    r.bytes.next_multiple_of(LINE)
}

/// Largest first, each at the lowest place that is free all its life.
fn largest_first(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..requests.len()).filter(|i| requests[*i].bytes > 0).collect();
    order.sort_by_key(|i| (Reverse(requests[*i].bytes), *i));
    let mut offsets = vec![0; requests.len()];
    let mut placed: Vec<usize> = vec![];
    let mut total = 0;
    for i in order {
        let r = &requests[i];
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|j| requests[**j].first <= r.last && r.first <= requests[**j].last)
            .map(|j| (offsets[*j], offsets[*j] + size(&requests[*j])))
            .collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if start >= at + size(r) {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        total = total.max(at + size(r));
        placed.push(i);
    }
    (offsets, total)
}

/// As they come, each in the smallest hole that holds it: somewhat larger as a whole, in time `n log n`.
fn in_order_of_time(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..requests.len()).filter(|i| requests[*i].bytes > 0).collect();
    order.sort_by_key(|i| (requests[*i].first, Reverse(requests[*i].bytes), *i));
    let mut offsets = vec![0; requests.len()];
    let (mut holes, mut alive) = (Holes::default(), BinaryHeap::new());
    for i in order {
        let r = &requests[i];
        while let Some(Reverse((last, done))) = alive.peek().copied()
            && last < r.first
        {
            alive.pop();
            holes.free(offsets[done], size(&requests[done]));
        }
        offsets[i] = holes.take(size(r));
        alive.push(Reverse((r.last, i)));
    }
    (offsets, holes.end)
}

/// The free stretches below `end`, none beside another.
#[derive(Default)]
struct Holes {
    by_offset: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    end: usize,
}

impl Holes {
    fn add(&mut self, offset: usize, size: usize) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }
    fn remove(&mut self, offset: usize, size: usize) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(size, offset));
    }
    /// The offset of `size` bytes that are taken now: of the smallest hole that holds them, else at the end.
    fn take(&mut self, size: usize) -> usize {
        if let Some(&(hole, offset)) = self.by_size.range((size, 0)..).next() {
            self.remove(offset, hole);
            if hole > size {
                self.add(offset + size, hole - size);
            }
            return offset;
        }
        // a hole that reaches the end is where the whole grows
        let last = self.by_offset.last_key_value().map(|(o, s)| (*o, *s));
        let offset = match last.filter(|(o, s)| o + s == self.end) {
            Some((offset, hole)) => {
                self.remove(offset, hole);
                offset
            }
            None => self.end,
        };
        self.end = offset + size;
        offset
    }
    /// Gives a stretch back, joined with the holes beside it.
    fn free(&mut self, mut offset: usize, mut size: usize) {
        let before = self.by_offset.range(..offset).next_back().map(|(o, s)| (*o, *s));
        if let Some((o, s)) = before.filter(|(o, s)| o + s == offset) {
            self.remove(o, s);
            (offset, size) = (o, s + size);
        }
        if let Some(s) = self.by_offset.get(&(offset + size)).copied() {
            self.remove(offset + size, s);
            size += s;
        }
        self.add(offset, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_do_not_overlap() {
        let mut seed = 1u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..50 {
            let requests: Vec<Request> = (0..40)
                .map(|_| {
                    let first = next(30) as usize;
                    Request { bytes: next(1000) as usize, first, last: first + next(8) as usize }
                })
                .collect();
            for (offsets, total) in [largest_first(&requests), in_order_of_time(&requests)] {
                for (i, a) in requests.iter().enumerate().filter(|(_, r)| r.bytes > 0) {
                    assert!(offsets[i].is_multiple_of(LINE) && offsets[i] + a.bytes <= total);
                    for (j, b) in requests.iter().enumerate().skip(i + 1).filter(|(_, r)| r.bytes > 0) {
                        let together = a.first <= b.last && b.first <= a.last;
                        let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                        assert!(!together || apart, "{i} and {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        for n in [10, MANY + 1] {
            let chain: Vec<Request> = (0..n).map(|i| Request { bytes: 640, first: i, last: i + 1 }).collect();
            assert_eq!(place(&chain).1, 1280);
        }
    }
}
