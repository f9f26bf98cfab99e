//! How deep are repeats and calls nested?
//!
//! Timing, weighing and executing follow a program from repeats and calls into what they repeat
//! and call, each level on top of the other on the stack of a thread. So there is a rule of depth
//! ([`DEPTH_MAX`]), which [`crate::verify`] and every other door to a program check first, without
//! following anything themselves.

use std::fmt;

use super::{Function, FunctionId, Program, Step};
use crate::ids::{Id, IdVec};

/// Levels of repeats and calls that a program may have, one in another.
///
/// The stack of a thread has 2 MiB (`std::thread`), so that a level of any walk may take 16 KiB of
/// it. Programs for BERT have under ten levels.
pub const DEPTH_MAX: u64 = 128;

/// A program is nested deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {DEPTH_MAX} levels of repeats and calls, got {}", Levels(*got))]
pub struct TooDeep {
    /// Levels of the program; none if a function calls itself.
    pub got: Option<u64>,
}

/// A number of levels, for a message.
struct Levels(Option<u64>);

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(got) => write!(f, "{got}"),
            None => f.write_str("no end of them: a function calls itself"),
        }
    }
}

/// Steps in order, each with the number of repeats that it is in.
pub(crate) struct NestedSteps<'p> {
    open: Vec<std::slice::Iter<'p, Step>>,
}

/// The steps of a list and of the repeats in it, in the order in which they stand there.
pub(crate) fn nested(steps: &[Step]) -> NestedSteps<'_> {
    let open = vec![steps.iter()];
    NestedSteps { open }
}

impl<'p> Iterator for NestedSteps<'p> {
    type Item = (usize, &'p Step);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let depth = self.open.len().checked_sub(1)?;
            let Some(step) = self.open[depth].next() else {
                self.open.pop();
                continue;
            };
            if let Step::Repeat { body, .. } = step {
                self.open.push(body.iter());
            }
            return Some((depth, step));
        }
    }
}

/// The calls of a list of steps, and what they are worth.
struct Nesting {
    /// Of its repeats, and of the calls that are known.
    known: u64,
    /// Callees that aren't known yet, with the levels of their calls.
    calls: Vec<(FunctionId, u64)>,
}

impl Nesting {
    fn of(steps: &[Step], functions: &IdVec<FunctionId, Function>) -> Self {
        let mut levels = Self {
            known: 0,
            calls: Vec::new(),
        };
        for (depth, step) in nested(steps) {
            let inside = depth as u64 + 1;
            match step {
                // What isn't there is another rule's business.
                Step::Call(callee) if callee.index() < functions.len() => {
                    levels.calls.push((*callee, inside));
                }
                Step::Call(_) | Step::Repeat { .. } => levels.known = levels.known.max(inside),
                _ => {}
            }
        }
        levels
    }

    fn with(&self, functions: &IdVec<FunctionId, Option<u64>>) -> Option<u64> {
        let mut most = self.known;
        for &(callee, inside) in &self.calls {
            most = most.max(functions[callee]? + inside);
        }
        Some(most)
    }
}

impl Program {
    /// Levels of repeats and calls, one in another; none if a function calls itself.
    #[must_use]
    pub fn depth(&self) -> Option<u64> {
        let functions = self.functions.values();
        let levels: IdVec<FunctionId, Nesting> = functions
            .map(|function| Nesting::of(&function.steps, &self.functions))
            .collect();
        let mut callers: IdVec<FunctionId, Vec<FunctionId>> =
            self.functions.ids().map(|_| Vec::new()).collect();
        let mut open: IdVec<FunctionId, usize> = self.functions.ids().map(|_| 0).collect();
        for (caller, levels) in levels.iter() {
            for &(callee, _) in &levels.calls {
                callers[callee].push(caller);
                open[caller] += 1;
            }
        }
        let mut depths: IdVec<FunctionId, Option<u64>> =
            self.functions.ids().map(|_| None).collect();
        let mut ended: Vec<FunctionId> = self.functions.ids().filter(|&id| open[id] == 0).collect();
        while let Some(callee) = ended.pop() {
            depths[callee] = levels[callee].with(&depths);
            for &caller in &callers[callee] {
                open[caller] -= 1;
                if open[caller] == 0 {
                    ended.push(caller);
                }
            }
        }
        let main = Nesting::of(&self.steps, &self.functions).with(&depths);
        let all = depths.values().copied().chain([main]);
        all.reduce(|a, b| Some(a?.max(b?))).flatten()
    }

    /// Checks the rule of depth.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] for a program of more than [`DEPTH_MAX`] levels, or whose calls come to no end.
    pub fn check_depth(&self) -> Result<(), TooDeep> {
        match self.depth() {
            Some(depth) if depth <= DEPTH_MAX => Ok(()),
            got => Err(TooDeep { got }),
        }
    }
}

impl Drop for Step {
    /// Repeats in repeats are taken apart one by one, so that dropping them takes no stack.
    fn drop(&mut self) {
        let Self::Repeat { body, .. } = self else {
            return;
        };
        let mut pending = std::mem::take(body);
        while let Some(mut step) = pending.pop() {
            if let Self::Repeat { body, .. } = &mut step {
                pending.append(body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::{Host, StreamError};
    use crate::ids::ReplicaId;
    use crate::program::StreamId;

    struct NoHost;

    impl Host for NoHost {
        fn read(&mut self, _: ReplicaId, _: StreamId) -> Result<Vec<f64>, StreamError> {
            Err(StreamError::NotConnected)
        }

        fn write(&mut self, _: ReplicaId, _: StreamId, _: Vec<f64>) -> Result<(), StreamError> {
            Err(StreamError::NotConnected)
        }
    }

    fn function(steps: Vec<Step>) -> Function {
        let name = String::new();
        Function { name, steps }
    }

    /// `n` repeats, one in another.
    fn repeats(n: u64) -> Vec<Step> {
        (0..n).fold(Vec::new(), |body, _| vec![Step::Repeat { count: 2, body }])
    }

    #[test]
    fn levels_of_repeats_and_calls_add_up() {
        let mut program = Program::new(1, 1);
        assert_eq!(program.depth(), Some(0));
        program.steps = repeats(3);
        assert_eq!(program.depth(), Some(3));
        program.functions.push(function(repeats(2)));
        let call = vec![Step::Call(FunctionId(0))];
        program.functions.push(function(call));
        program.steps = vec![Step::Repeat {
            count: 1,
            body: vec![Step::Call(FunctionId(1))],
        }];
        assert_eq!(program.depth(), Some(5));
        program.functions[FunctionId(0)].steps = vec![Step::Call(FunctionId(1))];
        assert_eq!(program.depth(), None);
    }

    /// Fails by an abort, where something follows repeats or calls on its stack.
    #[test]
    fn what_is_far_too_deep_is_refused_and_dropped() {
        let machine = crate::spec::fixtures::machine("mk2-m2000");
        let mut nested = Program::new(1, 1);
        nested.steps = repeats(200_000);
        let mut chained = Program::new(1, 1);
        for next in 1..200_000 {
            let call = vec![Step::Call(FunctionId(next))];
            chained.functions.push(function(call));
        }
        chained.functions.push(function(Vec::new()));
        chained.steps = vec![Step::Call(FunctionId(0))];
        for program in [nested, chained] {
            let got = Some(200_000);
            assert_eq!(program.check_depth(), Err(TooDeep { got }));
            let expected = "expected at most 128 levels of repeats and calls, got 200000";
            let error = program.verify(&machine).unwrap_err();
            assert_eq!(error.to_string(), format!("the program: {expected}"));
            let error = crate::weigh::weigh(&program, &machine).unwrap_err();
            assert_eq!(error.to_string(), format!("the program: {expected}"));
            let error = crate::execute::Memory::new(&program).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(crate::text::print(&program).lines().count() > 200_000);
        }
    }

    /// What the rule allows takes less than half the stack of a thread, in every walk.
    #[test]
    fn the_deepest_program_is_walked_on_a_small_stack() {
        use crate::engine::{Mode, Options, time};
        let machine = crate::spec::fixtures::machine("mk2-m2000");
        let walk = move || {
            let mut chained = Program::new(1, 1);
            for next in 1..DEPTH_MAX as u32 {
                let call = vec![Step::Call(FunctionId(next))];
                chained.functions.push(function(call));
            }
            chained.functions.push(function(Vec::new()));
            chained.steps = vec![Step::Call(FunctionId(0))];
            let mut nested = Program::new(1, 1);
            nested.steps = repeats(DEPTH_MAX);
            for program in [nested, chained] {
                assert_eq!(program.depth(), Some(DEPTH_MAX));
                for mode in [Mode::Folded, Mode::Unfolded] {
                    let options = Options {
                        mode,
                        trace_depth: u32::MAX,
                    };
                    time(&program, &machine, options).unwrap();
                }
                crate::weigh::weigh(&program, &machine).unwrap();
                let at = (crate::ids::IpuId(0), crate::ids::TileId(0));
                let curves = crate::weigh::live_curves(&program, &machine, &[at]);
                assert_eq!(curves.len(), 1);
                let mut memory = crate::execute::Memory::new(&program).unwrap();
                let mut remote = crate::execute::RemoteMemory::new(&program);
                crate::execute::run(&mut memory, &mut NoHost, &mut remote).unwrap();
                let parts = crate::weigh::weigh_parts(&program, &machine, at.0, &[&|_| true]);
                assert_eq!(parts.len(), 1);
            }
        };
        let half = std::thread::Builder::new().stack_size(1 << 20);
        half.spawn(walk).unwrap().join().unwrap();
    }
}
