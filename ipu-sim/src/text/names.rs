//! Names that tell apart what a program has: those it gives, made unique.
//!
//! A number that counts all variables of a program changes with each that is added before; a
//! counter among those that the same operation names alike changes for these alone, so that
//! texts of programs can be compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::IdVec;
use crate::program::{
    FunctionId, Program, RemoteBufferId, SourceId, Step, StreamId, Transfer, VarId, nested,
};

/// A name for everything in a program that has an id.
///
/// A variable that doesn't always live is named with the kind of the operation that first writes
/// it: `Layer5/FF/Norm:layer_norm_grad`. The first of several equal names stays as it is, the
/// next ones are `Layer5/FF/Norm:layer_norm_grad.2` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Names of variables, each unique on its IPU.
    pub vars: IdVec<VarId, String>,
    /// Names of functions.
    pub functions: IdVec<FunctionId, String>,
    /// Names of streams.
    pub streams: IdVec<StreamId, String>,
    /// Names of buffers in streaming memory.
    pub remote_buffers: IdVec<RemoteBufferId, String>,
}

impl Names {
    /// The names of a program.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let writers = first_writers(program);
        let full_name = |id: VarId| {
            let var = &program.vars[id];
            match writers[id].filter(|_| !var.kind.is_always_live()) {
                Some(source) => format!("{}:{}", var.name, program.source(source).kind),
                None => var.name.clone(),
            }
        };
        let vars: Vec<String> = program.vars.ids().map(full_name).collect();
        let ipus = program.vars.values().map(|var| var.ipu);
        let functions = program.functions.values();
        let streams = program.streams.values();
        let buffers = program.remote_buffers.values();
        Self {
            vars: unique(ipus.zip(vars.iter().map(String::as_str))).into(),
            functions: unique(functions.map(|function| ((), function.name.as_str()))).into(),
            streams: unique(streams.map(|stream| ((), stream.name.as_str()))).into(),
            remote_buffers: unique(buffers.map(|buffer| ((), buffer.name.as_str()))).into(),
        }
    }
}

/// The source of the step that writes a variable first: in a function, else in what calls them.
fn first_writers(program: &Program) -> IdVec<VarId, Option<SourceId>> {
    let mut writers = IdVec::from(vec![None; program.vars.len()]);
    for function in program.functions.values() {
        note_writers(&function.steps, &mut writers);
    }
    note_writers(&program.steps, &mut writers);
    writers
}

fn note_writers(steps: &[Step], writers: &mut IdVec<VarId, Option<SourceId>>) {
    for (_, step) in nested(steps) {
        let (source, written): (SourceId, Vec<VarId>) = match step {
            Step::Compute(set) => {
                let groups = set.vertices.iter();
                (set.source, groups.map(|group| group.output.var).collect())
            }
            Step::Exchange(exchange) => {
                let copies = exchange.copies.iter();
                (exchange.source, copies.map(|copy| copy.dst.var).collect())
            }
            Step::IpuCopies { source, copies } => {
                (*source, copies.iter().map(|copy| copy.dst).collect())
            }
            Step::Transfers { source, transfers } => {
                let arrives = |transfer: &&Transfer| {
                    matches!(
                        transfer,
                        Transfer::HostRead { .. } | Transfer::RemoteLoad { .. }
                    )
                };
                let arriving = transfers.iter().filter(arrives);
                (*source, arriving.map(Transfer::var).collect())
            }
            Step::Collective(collective) => {
                let tensors = collective.tensors.iter();
                (
                    collective.source,
                    tensors.map(|tensor| tensor.dst).collect(),
                )
            }
            Step::Repeat { .. } | Step::Call(_) | Step::Section(_) => continue,
        };
        for var in written {
            writers[var].get_or_insert(source);
        }
    }
}

/// The names, of which no two in one place are equal.
fn unique<'a, Place: Copy + Ord>(named: impl Iterator<Item = (Place, &'a str)>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut counts: BTreeMap<(Place, &str), u32> = BTreeMap::new();
    let one = |(place, name): (Place, &'a str)| {
        let count = counts.entry((place, name)).or_default();
        loop {
            *count += 1;
            let candidate = match *count {
                1 => name.to_owned(),
                count => format!("{name}.{count}"),
            };
            if taken.insert((place, candidate.clone())) {
                return candidate;
            }
        }
    };
    named.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::unique;

    #[test]
    fn equal_names_of_one_place_are_counted() {
        let named = [(0, "x"), (0, "y"), (1, "x"), (0, "x"), (0, "x")];
        assert_eq!(unique(named.into_iter()), ["x", "y", "x", "x.2", "x.3"]);
    }

    #[test]
    fn a_name_that_looks_counted_stays_apart() {
        let named = [(0, "x.2"), (0, "x"), (0, "x"), (0, "x.2")];
        assert_eq!(unique(named.into_iter()), ["x.2", "x", "x.3", "x.2.2"]);
    }
}
