//! Loops that add to several running numbers at once.

use smallvec::SmallVec;

/// The running numbers of a walk.
pub(super) type Numbers = SmallVec<[usize; 8]>;

/// One loop: what each of its steps adds to the running numbers.
#[derive(Clone, Debug)]
pub(super) struct Strides {
    width: usize,
    /// Row by row, one per step.
    deltas: Vec<usize>,
}

impl Strides {
    /// A loop of `extent` steps over `width` numbers that adds nothing yet.
    pub(super) fn new(extent: usize, width: usize) -> Self {
        Self {
            width,
            deltas: vec![0; extent * width],
        }
    }

    /// Makes step `i` add `terms[i]` more to number `column`.
    pub(super) fn add(&mut self, column: usize, terms: impl Iterator<Item = usize>) {
        for (row, term) in self.deltas.chunks_exact_mut(self.width).zip(terms) {
            row[column] += term;
        }
    }

    /// What every step adds.
    pub(super) fn steps(&self) -> impl Iterator<Item = &[usize]> {
        self.deltas.chunks_exact(self.width)
    }

    /// `start` moved to step `index`.
    pub(super) fn moved(&self, start: &[usize], index: usize) -> Numbers {
        let deltas = &self.deltas[index * self.width..(index + 1) * self.width];
        plus(start, deltas)
    }
}

fn plus(start: &[usize], deltas: &[usize]) -> Numbers {
    start.iter().zip(deltas).map(|(a, b)| a + b).collect()
}

/// Calls `body` for every combination of steps, the last loop fastest.
pub(super) fn walk<E>(
    loops: &[&Strides],
    start: &[usize],
    body: &mut impl FnMut(&[usize]) -> Result<(), E>,
) -> Result<(), E> {
    match loops.split_first() {
        None => body(start),
        Some((outermost, rest)) => {
            for deltas in outermost.steps() {
                walk(rest, &plus(start, deltas), body)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_adds_up_its_steps_with_the_last_loop_fastest() {
        let (mut rows, mut columns) = (Strides::new(2, 2), Strides::new(3, 2));
        rows.add(0, [0, 10].into_iter());
        columns.add(0, [0, 1, 2].into_iter());
        columns.add(1, [0, 5, 7].into_iter());
        let mut seen = Vec::new();
        walk::<()>(&[&rows, &columns], &[100, 0], &mut |at| {
            seen.push((at[0], at[1]));
            Ok(())
        })
        .unwrap();
        let expected = [(100, 0), (101, 5), (102, 7), (110, 0), (111, 5), (112, 7)];
        assert_eq!(seen, expected);
        assert_eq!(columns.moved(&[1, 1], 2)[..], [3, 8]);
    }
}
