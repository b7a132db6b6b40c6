//! Places in the arena: buffers that are never in use at the same time may share bytes.
use crate::aligned::LINE;

/// A buffer: its size, and the first and last step that touches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

/// An offset for each request, on cache lines, and the size of the whole. Largest first, each at the lowest place that
/// is free all its life.
pub(crate) fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    let size = |r: &Request| r.bytes.next_multiple_of(LINE);
    let mut order: Vec<usize> = (0..requests.len()).filter(|i| requests[*i].bytes > 0).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(requests[*i].bytes), *i));
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
            let (offsets, total) = place(&requests);
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

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Request> = (0..10).map(|i| Request { bytes: 640, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).1, 1280);
    }
}
