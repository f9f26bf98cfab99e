//! A program reduced to what its time depends on.
//!
//! Every step becomes a [`Leaf`]: the IPUs it joins, the cycles it then takes and the
//! shared line it occupies. Repeats and calls stay as they are, so a schedule is as
//! short as its program. Which IPUs can make each other wait inside a repeat is worked
//! out here once ([`Timed::Repeat::groups`]).

use smallvec::SmallVec;

use super::timeline::{Activity, Channel};
use crate::ids::{IdVec, IpuId};
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::units::{Bytes, Cycles, Flops};

/// A line that only one transfer occupies at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line(pub(super) u32);

/// Occupation of a line by one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Occupied {
    /// Which line.
    pub(super) line: Line,
    /// From when on, after the step's begin.
    pub(super) lead: Cycles,
    /// For how long.
    pub(super) cycles: Cycles,
}

/// One step: all its IPUs wait for the last one, then spend the same cycles.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf {
    /// Where it comes from.
    pub(super) source: SourceId,
    /// Who takes part, in order.
    pub(super) ipus: SmallVec<[IpuId; 2]>,
    /// What line it needs.
    pub(super) occupies: Option<Occupied>,
    /// How long its IPU waits for the host before anything else.
    pub(super) asks: Cycles,
    /// What it takes then.
    pub(super) spends: SmallVec<[(Activity, Cycles); 2]>,
    /// What it computes in matrix products.
    pub(super) flops: Flops,
    /// What it moves.
    pub(super) moves: SmallVec<[(Channel, Bytes); 1]>,
    /// Streams with one element each in this step.
    pub(super) streams: SmallVec<[StreamId; 1]>,
}

/// One step of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timed {
    /// A step that takes time.
    Leaf(Leaf),
    /// Steps a number of times.
    Repeat {
        /// How often.
        count: u32,
        /// What.
        body: Vec<Timed>,
        /// IPUs and lines of the body that can make each other wait, group by group.
        groups: Vec<Group>,
    },
    /// The steps of a function.
    Call(FunctionId),
    /// What follows belongs to this section.
    Section(SectionId),
}

/// IPUs that can make each other wait, and the lines that they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// By IPU: whether it belongs here.
    pub(super) ipus: Vec<bool>,
    /// The lines.
    pub(super) lines: Vec<Line>,
    /// Whether no IPU outside uses these lines anywhere in the program.
    pub(super) exclusive: bool,
}

/// What the time of a program depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    pub(super) n_ipus: u32,
    pub(super) n_lines: u32,
    pub(super) n_sources: usize,
    pub(super) n_streams: usize,
    pub(super) n_sections: usize,
    pub(super) functions: IdVec<FunctionId, Vec<Timed>>,
    pub(super) steps: Vec<Timed>,
}

impl Schedule {
    /// Fills in the groups of every repeat.
    ///
    /// # Panics
    ///
    /// If a function calls itself: programs are made by the compiler, not by users.
    pub(super) fn link(mut self) -> Self {
        let mut users = vec![vec![false; self.n_ipus as usize]; self.n_lines as usize];
        for steps in self.functions.values().chain([&self.steps]) {
            mark_users(steps, &mut users);
        }
        let mut linker = Linker {
            n_ipus: self.n_ipus as usize,
            users,
            couplings: self.functions.ids().map(|_| None).collect(),
        };
        for id in self.functions.ids() {
            linker.function(id, &mut self.functions, 0);
        }
        linker.steps(&mut self.steps);
        self
    }
}

/// Marks which IPUs use which lines.
fn mark_users(steps: &[Timed], users: &mut [Vec<bool>]) {
    for step in steps {
        match step {
            Timed::Leaf(leaf) => {
                for (occupied, ipu) in leaf.occupies.iter().zip(&leaf.ipus) {
                    users[occupied.line.0 as usize][ipu.0 as usize] = true;
                }
            }
            Timed::Repeat { body, .. } => mark_users(body, users),
            Timed::Call(_) | Timed::Section(_) => {}
        }
    }
}

fn calls(steps: &[Timed], out: &mut Vec<FunctionId>) {
    for step in steps {
        match step {
            Timed::Leaf(_) | Timed::Section(_) => {}
            Timed::Repeat { body, .. } => calls(body, out),
            Timed::Call(function) => out.push(*function),
        }
    }
}

struct Linker {
    n_ipus: usize,
    /// By line: who uses it.
    users: Vec<Vec<bool>>,
    /// What functions join, as far as known.
    couplings: IdVec<FunctionId, Option<Coupling>>,
}

impl Linker {
    /// Links a function after those that it calls.
    fn function(
        &mut self,
        id: FunctionId,
        functions: &mut IdVec<FunctionId, Vec<Timed>>,
        depth: usize,
    ) {
        assert!(depth < functions.len(), "{id} calls itself");
        if self.couplings[id].is_some() {
            return;
        }
        let mut called = Vec::new();
        calls(&functions[id], &mut called);
        for callee in called {
            self.function(callee, functions, depth + 1);
        }
        self.couplings[id] = Some(self.steps(&mut functions[id]));
    }

    /// Links steps whose callees are linked; what they join.
    fn steps(&self, steps: &mut [Timed]) -> Coupling {
        let mut coupling = Coupling::new(self.n_ipus + self.users.len());
        for step in steps {
            match step {
                Timed::Leaf(leaf) => {
                    let line = leaf.occupies.map(|occupied| occupied.line.0 as usize);
                    let nodes = leaf.ipus.iter().map(|ipu| ipu.0 as usize);
                    coupling.join(nodes.chain(line.map(|line| self.n_ipus + line)));
                }
                Timed::Repeat { body, groups, .. } => {
                    let inner = self.steps(body);
                    coupling.join_all(&inner);
                    *groups = self.groups(&inner);
                }
                Timed::Call(function) => {
                    let callee = self.couplings[*function].as_ref();
                    coupling.join_all(callee.expect("callees are linked before their callers"));
                }
                Timed::Section(_) => {}
            }
        }
        coupling
    }

    fn groups(&self, coupling: &Coupling) -> Vec<Group> {
        let is_root = |&node: &usize| coupling.used[node] && coupling.root(node) == node;
        let roots = (0..self.n_ipus).filter(is_root);
        roots
            .map(|root| {
                let belongs = |node: usize| coupling.used[node] && coupling.root(node) == root;
                let ipus: Vec<bool> = (0..self.n_ipus).map(belongs).collect();
                let lines = (0..self.users.len()).filter(|line| belongs(self.n_ipus + line));
                let lines: Vec<usize> = lines.collect();
                let outside = |line: &usize| {
                    let mut users = self.users[*line].iter().zip(&ipus);
                    users.any(|(&uses, &inside)| uses && !inside)
                };
                Group {
                    exclusive: !lines.iter().any(outside),
                    lines: lines.iter().map(|&line| Line(line as u32)).collect(),
                    ipus,
                }
            })
            .collect()
    }
}

/// Which IPUs and lines hang together: a union-find forest, lines after IPUs.
#[derive(Clone, Debug)]
struct Coupling {
    parent: Vec<usize>,
    used: Vec<bool>,
}

impl Coupling {
    fn new(n_nodes: usize) -> Self {
        Self {
            parent: (0..n_nodes).collect(),
            used: vec![false; n_nodes],
        }
    }

    fn root(&self, mut node: usize) -> usize {
        while self.parent[node] != node {
            node = self.parent[node];
        }
        node
    }

    fn join(&mut self, nodes: impl IntoIterator<Item = usize>) {
        let mut first = None;
        for node in nodes {
            self.used[node] = true;
            let (a, b) = (self.root(*first.get_or_insert(node)), self.root(node));
            // The smaller number is the root, so that every group has an IPU as its root.
            self.parent[a.max(b)] = a.min(b);
        }
    }

    fn join_all(&mut self, other: &Self) {
        for node in (0..other.used.len()).filter(|&node| other.used[node]) {
            self.join([other.root(node), node]);
        }
    }
}
