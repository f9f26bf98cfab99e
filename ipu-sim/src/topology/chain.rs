//! How far apart are two of the positions in a chain, and what lies between?
//!
//! Rungs of a rack form a chain, and racks of a machine; a torus closes it to a ring.

/// Positions one after the other, the last of which may lead back to the first.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub(super) len: u32,
    pub(super) closed: bool,
}

impl Chain {
    /// The position above `at`.
    pub(super) fn next(self, at: u32) -> Option<u32> {
        if at + 1 < self.len {
            Some(at + 1)
        } else {
            self.closed.then_some(0)
        }
    }

    /// Steps between the two most distant of some positions.
    pub(super) fn span(self, positions: &[u32]) -> u32 {
        let pairs = positions
            .iter()
            .flat_map(|&a| positions.iter().map(move |&b| (a, b)));
        let steps = pairs.map(|(a, b)| {
            let apart = a.abs_diff(b);
            if self.closed {
                apart.min(self.len - apart)
            } else {
                apart
            }
        });
        steps.max().unwrap_or(0)
    }

    /// All positions from `from` to `to`, both included, by the shorter of two, and up in a tie.
    pub(super) fn path(self, from: u32, to: u32) -> impl Iterator<Item = u32> {
        let up = (to + self.len - from) % self.len;
        let down = (from + self.len - to) % self.len;
        let goes_up = if self.closed { up <= down } else { from <= to };
        let (steps, step) = if goes_up {
            (up, 1)
        } else {
            (down, self.len - 1)
        };
        (0..=steps).map(move |n| (from + n * step) % self.len)
    }
}
