//! Memory that a program takes beside its variables: code, vertex state and stacks.
//!
//! Estimates from the machine's [`MemorySpec`](crate::spec::MemorySpec): a codelet once
//! on each tile that has such a vertex; state for each vertex and its edges; exchange
//! code for each phase and each message that a tile takes part in; control code for
//! each step, on all tiles of the IPUs that it concerns. A function's steps count once,
//! however often it is called.
//!
//! Exchanges of one IPU that move the same bytes between the same tiles share the code of
//! their messages: of 24 equal layers in a PopLiner profile, the first has three times
//! the exchange code of the others. In an [outlined](Program::outlined) program, steps of
//! one IPU that are alike in all but their variables share vertex state and all exchange
//! code as well, as equal layers do that are calls of one function; and a run of such steps
//! has the control code of one, the call. Copies of what a call takes and hands out belong to
//! the place of the call, and share nothing.
//!
//! Beyond an IPU, data goes in packets, and what a message takes is its header: data that the
//! code sends, one for each variable and tile. Host exchanges cut messages into packets of 256 B
//! or 1 KiB; nobody published the size of their headers, so that they aren't counted one by one.
//!
//! Left out: code that differs between tiles only by size, work lists of matrix products, and
//! what instrumentation would add.

use std::mem::{Discriminant, discriminant};

use indexmap::{IndexMap, IndexSet};
use smallvec::SmallVec;

use super::Category;
use super::sizes::Sizes;
use super::state::state;
use crate::engine::traffic::Exchanges;
use crate::exchange::time::Traffic;
use crate::ids::{IdVec, IpuId};
use crate::numerics::DType;
use crate::program::{
    CollectiveKind, ComputeSet, Exchange, LayoutId, Operand, Program, Role, SourceId, Step,
    Transfer, VarId, VertexGroup,
};
use crate::spec::MachineSpec;
use crate::vertex::{BinaryFn, MapOp, MatMulMethod, ReduceOp, UnaryFn, Vertex, WorkerSeeds};

/// Bytes by category, IPU and tile.
pub(super) type Tables = IdVec<IpuId, Vec<(Category, Vec<u64>)>>;

/// Adds code, state and stacks of `program`.
pub(super) fn add(program: &Program, machine: &MachineSpec, sizes: &Sizes, tables: &mut Tables) {
    let moved = ExchangeTotals::new(program, machine);
    let mut count = Count::new((program, machine, sizes), &moved, None, tables);
    for steps in bodies(program) {
        count.steps(steps);
    }
    count.codelets();
    count.control();
    count.fixed();
}

/// Which sources are a part of a program.
pub(super) type SourceFilter<'a> = &'a (dyn Fn(SourceId) -> bool + Sync);

/// Adds code and state of the steps of one part: what they have of their own, and
/// what they share with later steps.
pub(super) fn add_part(
    of: (&Program, &MachineSpec, &Sizes),
    moved: &ExchangeTotals,
    part: SourceFilter<'_>,
    tables: &mut Tables,
) {
    let program = of.0;
    let mut count = Count::new(of, moved, Some(part), tables);
    for steps in bodies(program) {
        count.steps(steps);
    }
    count.codelets();
    count.control();
}

/// What all exchanges of a program move.
pub(super) struct ExchangeTotals {
    exchanges: Exchanges,
    traffic: Vec<Traffic>,
}

impl ExchangeTotals {
    pub(super) fn new(program: &Program, machine: &MachineSpec) -> Self {
        let mut exchanges = Exchanges::default();
        for steps in bodies(program) {
            number_exchanges(program, steps, &mut exchanges);
        }
        let traffic = exchanges.traffic(program, machine);
        Self { exchanges, traffic }
    }
}

fn bodies(program: &Program) -> impl Iterator<Item = &[Step]> {
    let functions = program.functions.values();
    functions
        .map(|function| function.steps.as_slice())
        .chain([program.steps.as_slice()])
}

fn number_exchanges(program: &Program, steps: &[Step], exchanges: &mut Exchanges) {
    for step in steps {
        match step {
            Step::Exchange(exchange) => {
                exchanges.add(program, exchange);
            }
            Step::Repeat { body, .. } => number_exchanges(program, body, exchanges),
            Step::Compute(_)
            | Step::IpuCopies { .. }
            | Step::Transfers { .. }
            | Step::Collective(_)
            | Step::Call(_)
            | Step::Section(_) => {}
        }
    }
}

/// What tells one codelet from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Codelet {
    vertex: Discriminant<Vertex>,
    expression: Option<Discriminant<MapOp>>,
    function: Option<Function>,
    dtypes: SmallVec<[DType; 5]>,
    in_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    Unary(UnaryFn),
    Binary(BinaryFn),
    Reduce(ReduceOp),
    MatMul(Discriminant<MatMulMethod>),
    WorkerSeeds(WorkerSeeds),
}

impl Codelet {
    fn of(program: &Program, group: &VertexGroup) -> Self {
        let (expression, function) = match &group.vertex {
            Vertex::Map(op) => {
                let function = match op {
                    MapOp::Unary(f) | MapOp::UnaryGrad(f) => Some(Function::Unary(*f)),
                    MapOp::Binary(f) => Some(Function::Binary(*f)),
                    _ => None,
                };
                (Some(discriminant(op)), function)
            }
            Vertex::Reduce { op, .. } => (None, Some(Function::Reduce(*op))),
            Vertex::MatMul { method, .. } => (None, Some(Function::MatMul(discriminant(method)))),
            Vertex::WorkerSeeds(step) => (None, Some(Function::WorkerSeeds(*step))),
            _ => (None, None),
        };
        let operands = [&group.output].into_iter().chain(&group.inputs);
        let output = group.output.var;
        Self {
            vertex: discriminant(&group.vertex),
            expression,
            function,
            dtypes: operands
                .map(|operand| program.vars[operand.var].dtype)
                .collect(),
            in_place: group.inputs.iter().any(|input| input.var == output),
        }
    }
}

/// A step without its variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    /// A vertex group: its codelet and what each operand lies like.
    Vertices(Codelet, SmallVec<[LayoutId; 5]>),
    /// An exchange, by the number of its traffic.
    Exchange(usize),
    /// A transfer beyond the IPU: what it is, and where a variable lies.
    Port(Port, LayoutId, DType),
}

/// A kind of transfer beyond the IPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Port {
    IpuCopies,
    Transfer(Discriminant<Transfer>),
    Collective(CollectiveKind),
}

impl Port {
    /// Categories of its code, and of what goes in front of its data.
    fn categories(self) -> [Category; 2] {
        match self {
            Self::IpuCopies | Self::Collective(_) => [
                Category::GlobalExchangeCode,
                Category::GlobalExchangePacketHeader,
            ],
            Self::Transfer(_) => [
                Category::HostExchangeCode,
                Category::HostExchangePacketHeader,
            ],
        }
    }
}

struct Count<'a> {
    program: &'a Program,
    machine: &'a MachineSpec,
    sizes: &'a Sizes,
    exchanges: Exchanges,
    traffic: &'a [Traffic],
    /// The part of the program whose bytes are added; none for all of it.
    part: Option<SourceFilter<'a>>,
    /// What was counted already, by IPU.
    seen: IndexSet<(IpuId, Content)>,
    /// Exchanges whose messages were counted already, by number of their traffic.
    sent: IndexSet<(IpuId, usize)>,
    /// By codelet and IPU: the tiles that have it.
    codelets: IndexMap<(IpuId, Codelet), Vec<bool>>,
    /// Whether the last step of an IPU was a repeated one.
    in_call: IdVec<IpuId, bool>,
    /// Control code of each tile of an IPU.
    control: IdVec<IpuId, u64>,
    tables: &'a mut Tables,
}

impl<'a> Count<'a> {
    fn new(
        (program, machine, sizes): (&'a Program, &'a MachineSpec, &'a Sizes),
        moved: &'a ExchangeTotals,
        part: Option<SourceFilter<'a>>,
        tables: &'a mut Tables,
    ) -> Self {
        Self {
            program,
            machine,
            sizes,
            exchanges: moved.exchanges.clone(),
            traffic: &moved.traffic,
            part,
            seen: IndexSet::new(),
            sent: IndexSet::new(),
            codelets: IndexMap::new(),
            in_call: IdVec::from(vec![false; program.n_ipus as usize]),
            control: IdVec::from(vec![0; program.n_ipus as usize]),
            tables,
        }
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            let (ipus, is_new) = match step {
                Step::Compute(set) => (vec![set.ipu], self.compute(set)),
                Step::Exchange(exchange) => (vec![exchange.ipu], self.exchange(exchange)),
                Step::IpuCopies { source, copies } => {
                    let vars = copies.iter().flat_map(|copy| [copy.src, copy.dst]);
                    self.ports(*source, vars.map(|var| (Port::IpuCopies, var)))
                }
                Step::Transfers { source, transfers } => self.ports(
                    *source,
                    transfers
                        .iter()
                        .map(|transfer| (Port::Transfer(discriminant(transfer)), transfer.var())),
                ),
                Step::Collective(collective) => {
                    let port = Port::Collective(collective.kind);
                    let tensors = collective.tensors.iter();
                    let vars = tensors.flat_map(|tensor| [tensor.src, tensor.dst]);
                    self.ports(collective.source, vars.map(|var| (port, var)))
                }
                Step::Repeat { body, .. } => {
                    self.steps(body);
                    (self.all_ipus(), true)
                }
                Step::Call(_) => (self.all_ipus(), true),
                Step::Section(_) => continue,
            };
            // Repeats and calls belong to the program, not to a part of it.
            let counts = match step.source() {
                Some(source) => self.counts(source),
                None => self.part.is_none(),
            };
            let control = self.machine.memory.control_code_per_step.0;
            for ipu in ipus {
                let goes_on = std::mem::replace(&mut self.in_call[ipu], !is_new);
                if counts && (is_new || !goes_on) {
                    self.control[ipu] += control;
                }
            }
        }
    }

    /// Whether the bytes of a source's steps are added.
    fn counts(&self, source: SourceId) -> bool {
        self.part.is_none_or(|part| part(source))
    }

    /// Notes a step's content; whether it is new on its IPU, so that it has code of its own.
    fn is_new(&mut self, ipu: IpuId, source: SourceId, content: Content) -> bool {
        let shares = self.program.outlined && self.program.source(source).role != Role::Call;
        !shares || self.seen.insert((ipu, content))
    }

    fn all_ipus(&self) -> Vec<IpuId> {
        (0..self.program.n_ipus).map(IpuId).collect()
    }

    fn table(&mut self, ipu: IpuId, category: Category) -> &mut Vec<u64> {
        let tables = &mut self.tables[ipu];
        let table = tables.iter_mut().find(|(found, _)| *found == category);
        &mut table.expect("there is a table for every category").1
    }

    /// State of vertices, one for each group and tile; whether any of it is new.
    fn compute(&mut self, set: &ComputeSet) -> bool {
        let memory = &self.machine.memory;
        // What arrives in a rearrangement is put in order by copies of the exchange, not by
        // vertices.
        let is_vertex = |group: &&VertexGroup| group.vertex != Vertex::Assemble;
        if !set.vertices.iter().any(|group| is_vertex(&group)) {
            // It goes with the exchange before it.
            return !self.in_call[set.ipu];
        }
        let counts = self.counts(set.source);
        let mut any_new = false;
        for group in set.vertices.iter().filter(is_vertex) {
            let codelet = Codelet::of(self.program, group);
            let lies = |operand: &Operand| self.program.vars[operand.var].layout;
            let operands = [&group.output].into_iter().chain(&group.inputs);
            let content = Content::Vertices(codelet.clone(), operands.map(lies).collect());
            let is_new = self.is_new(set.ipu, set.source, content);
            any_new |= is_new;
            if !counts {
                continue;
            }
            let (program, sizes, n_tiles) = (self.program, self.sizes, self.sizes.n_tiles());
            let has_vertex = |tile: &usize| sizes.on_tile(program, group.output.var, *tile) > 0;
            let tiles: Vec<usize> = (0..n_tiles).filter(has_vertex).collect();
            let present = self
                .codelets
                .entry((set.ipu, codelet))
                .or_insert_with(|| vec![false; n_tiles]);
            for &tile in &tiles {
                present[tile] = true;
            }
            if !is_new {
                continue;
            }
            let state = state(self.program, group, memory);
            for (category, bytes) in state.into_iter().filter(|&(_, bytes)| bytes > 0) {
                let table = self.table(set.ipu, category);
                for &tile in &tiles {
                    table[tile] += bytes;
                }
            }
        }
        any_new
    }

    /// Code of an exchange; whether it is new.
    fn exchange(&mut self, exchange: &Exchange) -> bool {
        let number = self.exchanges.add(self.program, exchange);
        if !self.is_new(exchange.ipu, exchange.source, Content::Exchange(number)) {
            return false;
        }
        let is_first = self.sent.insert((exchange.ipu, number));
        if !self.counts(exchange.source) {
            return true;
        }
        let traffic = &self.traffic[number];
        let memory = &self.machine.memory;
        let phase = memory.exchange_code_per_phase.0;
        let message = match is_first {
            true => memory.exchange_code_per_fragment.0,
            false => 0,
        };
        let table = self.table(exchange.ipu, Category::InternalExchangeCode);
        for (sum, tile) in table.iter_mut().zip(&traffic.tiles) {
            if tile.received > 0 || tile.sent > 0 {
                *sum += phase + message * u64::from(tile.messages);
            }
        }
        true
    }

    /// Code and headers for moving variables beyond their IPU: one message on every tile; the
    /// IPUs, and whether any of it is new.
    fn ports(
        &mut self,
        source: SourceId,
        vars: impl Iterator<Item = (Port, VarId)>,
    ) -> (Vec<IpuId>, bool) {
        let memory = &self.machine.memory;
        let (code, header) = (
            memory.exchange_code_per_phase.0,
            memory.exchange_code_per_fragment.0,
        );
        let (mut ipus, mut any_new) = (Vec::new(), false);
        for (port, var) in vars {
            let variable = &self.program.vars[var];
            let ipu = variable.ipu;
            ipus.push(ipu);
            let content = Content::Port(port, variable.layout, variable.dtype);
            if !self.is_new(ipu, source, content) {
                continue;
            }
            any_new = true;
            if !self.counts(source) {
                continue;
            }
            let (program, sizes) = (self.program, self.sizes);
            for (category, bytes) in port.categories().into_iter().zip([code, header]) {
                let table = self.table(ipu, category);
                for (tile, sum) in table.iter_mut().enumerate() {
                    if sizes.on_tile(program, var, tile) > 0 {
                        *sum += bytes;
                    }
                }
            }
        }
        ipus.sort_unstable();
        ipus.dedup();
        (ipus, any_new)
    }

    fn codelets(&mut self) {
        let code = self.machine.memory.vertex_code_per_type.0;
        for ((ipu, _), present) in std::mem::take(&mut self.codelets) {
            let table = self.table(ipu, Category::VertexCode);
            for (sum, present) in table.iter_mut().zip(present) {
                *sum += code * u64::from(present);
            }
        }
    }

    /// Control code, which is the same on all tiles: a call concerns all IPUs, so that tiles are
    /// gone through once and not at every call.
    fn control(&mut self) {
        for ipu in self.all_ipus() {
            let bytes = self.control[ipu];
            self.table(ipu, Category::ControlCode).fill(bytes);
        }
    }

    /// What every tile has.
    fn fixed(&mut self) {
        let memory = &self.machine.memory;
        let fixed = [
            (Category::Stack, memory.stacks(self.machine.tile.workers).0),
            (Category::Loader, memory.loader.0),
        ];
        for ipu in self.all_ipus() {
            for (category, bytes) in fixed {
                self.table(ipu, category).fill(bytes);
            }
        }
    }
}
