//! Changes of a good program, and what becomes of it: shared with the fuzz target `program`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipu_sim::device::{Clock, Connection, DeviceError, DeviceManager, Executable, Mode, Ports};
use ipu_sim::execute::{FloatControl, StreamError};
use ipu_sim::ids::{Id, IpuId, ReplicaId};
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    CollectiveKind, FunctionId, Label, LayoutId, Operand, Program, RemoteBufferId, SectionId,
    SourceId, Step, StreamId, Transfer, VarId, VertexGroup,
};
use ipu_sim::units::Bytes;
use ipu_sim::vertex::{MapOp, MatMulMethod, ReduceOp, UnaryFn, Vertex};

use crate::good::{machine, options};

/// Numbers that are likely to be wrong somewhere.
pub(crate) const NUMBERS: [u32; 16] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    10,
    16,
    31,
    33,
    1 << 16,
    1 << 31,
    u32::MAX,
];

/// What is changed: which kind of thing, which of them, and to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) kind: u8,
    pub(crate) which: usize,
    pub(crate) part: usize,
    pub(crate) to: u32,
}

/// One of some things, if there are any.
fn pick<T>(all: &mut [T], which: usize) -> Option<&mut T> {
    let count = all.len().max(1);
    all.get_mut(which % count)
}

impl Change {
    pub(crate) fn apply(self, program: &mut Program) {
        let Self {
            kind,
            which,
            part,
            to,
        } = self;
        let var = VarId::from_index(which % program.vars.len());
        match kind {
            0 => program.vars[var].layout = LayoutId(to),
            1 => program.vars[var].layout = LayoutId(to % program.layouts.len() as u32),
            2 => program.vars[var].ipu = IpuId(to),
            3 => {
                program.vars[var].dtype = [DType::F16, DType::F32, DType::U32][part % 3];
            }
            4..=8 => {
                // A change before this one may have named a layout that there isn't.
                let LayoutId(id) = program.vars[var].layout;
                if let Some(mut layout) = program.layouts.get_index(id as usize).cloned() {
                    self.lay(&mut layout);
                    program.vars[var].layout = program.add_layout(layout);
                }
            }
            9 => {
                let stream = StreamId::from_index(which % program.streams.len());
                program.streams[stream].buffering_depth = to;
            }
            10 => {
                program.remote_buffers[RemoteBufferId(0)].bytes =
                    Bytes(u64::from(to) << (part % 33))
            }
            11 if part % 2 == 0 => program.n_ipus = to,
            11 => program.n_replicas = to,
            12 => {
                let step = which % program.steps.len();
                let body = program.steps.split_off(step);
                program.steps.push(Step::Repeat { count: to, body });
            }
            13 => {
                let (a, b) = (which % program.steps.len(), part % program.steps.len());
                program.steps.swap(a, b);
            }
            14 => {
                let function = FunctionId::from_index(which % program.functions.len());
                let moved = program.steps.pop();
                program.functions[function].steps.extend(moved);
                program.steps.push(Step::Call(FunctionId(to % 3)));
            }
            _ => {
                let mut steps = std::mem::take(&mut program.steps);
                if let Some(step) = pick(&mut steps, which) {
                    self.step(program, step);
                }
                // A step that fails must not empty the program.
                program.steps = steps;
            }
        }
    }

    fn lay(self, layout: &mut Layout) {
        let Self { kind, part, to, .. } = self;
        match kind {
            4 => layout.first_tile = to,
            5 => layout.copies = vec![0, to, to.saturating_mul(2)],
            6 => {
                if let Some(order) = pick(&mut layout.order, part) {
                    (order.axis, order.block) = (order.axis ^ (part % 2) as u8, to);
                }
            }
            7 => {
                let axis = match part % 3 {
                    0 => AxisSplit::whole(to),
                    _ => {
                        let even = Cut::even(1 + (part % 7) as u32);
                        let tile_stride = (part % 5) as u32;
                        AxisSplit::cut(
                            to.min(64),
                            &[Cut {
                                tile_stride,
                                ..even
                            }],
                        )
                    }
                };
                match pick(&mut layout.axes, part) {
                    Some(old) => *old = axis,
                    None => layout.axes.push(axis),
                }
            }
            _ => {
                let Some(axis) = pick(&mut layout.axes, part) else {
                    return;
                };
                let (ranges, places) = (&mut axis.ranges, &mut axis.places);
                match (part % 6, pick(ranges, part), pick(places, part)) {
                    (0, Some(range), _) => range.begin = to,
                    (1, Some(range), _) => range.len = to,
                    (2, Some(range), _) => range.place = to,
                    (3, Some(range), _) => range.local = to,
                    (4, _, Some(place)) => place.extent = to,
                    (_, _, Some(place)) => place.tile = to,
                    _ => {}
                }
            }
        }
    }

    fn step(self, program: &mut Program, step: &mut Step) {
        let Self { part, to, .. } = self;
        let var = VarId(to % (program.vars.len() as u32 + 1));
        match step {
            Step::Compute(set) => match part % 9 {
                0 => set.ipu = IpuId(to),
                1 => set.source = SourceId(to),
                _ => {
                    if let Some(group) = pick(&mut set.vertices, part) {
                        self.group(group, var);
                    }
                }
            },
            Step::Exchange(exchange) => {
                let Some(copy) = pick(&mut exchange.copies, part) else {
                    return;
                };
                let view = if part % 2 == 0 {
                    &mut copy.src
                } else {
                    &mut copy.dst
                };
                match part % 7 {
                    0 => exchange.ipu = IpuId(to),
                    1 => view.var = var,
                    2 if var.index() < program.vars.len() => *view = program.view(var),
                    3 => view.shape.offsets.push(to),
                    4 => {
                        if let Some(offset) = pick(&mut view.shape.offsets, part) {
                            *offset = to;
                        }
                    }
                    5 => {
                        let digits = view.shape.axes.iter_mut().flatten();
                        for digit in digits {
                            digit.stride = to;
                        }
                    }
                    _ => {
                        let digits = view.shape.axes.iter_mut().flatten();
                        for digit in digits {
                            digit.extent = to;
                        }
                    }
                }
            }
            Step::IpuCopies { copies, .. } => {
                if let Some(copy) = pick(copies, part) {
                    match part % 2 {
                        0 => copy.src = var,
                        _ => copy.dst = var,
                    }
                }
            }
            Step::Transfers { transfers, .. } => {
                let (stream, buffer) = (StreamId(to % 3), RemoteBufferId(to % 2));
                transfers.push(match part % 4 {
                    0 => Transfer::HostRead { stream, var },
                    1 => Transfer::HostWrite { stream, var },
                    2 => Transfer::RemoteLoad { buffer, var },
                    _ => Transfer::RemoteStore { buffer, var },
                });
            }
            Step::Collective(collective) => {
                if let Some(tensor) = pick(&mut collective.tensors, part) {
                    match part % 6 {
                        0 => tensor.src = var,
                        1 => tensor.dst = var,
                        2 => collective.kind = CollectiveKind::AllReduce,
                        3 => collective.kind = CollectiveKind::ReduceScatter,
                        4 => collective.kind = CollectiveKind::AllGather,
                        _ => collective.kind = CollectiveKind::TakeShard,
                    }
                }
            }
            Step::Repeat { count, .. } => *count = to,
            Step::Call(function) => *function = FunctionId(to),
            Step::Section(section) => *section = SectionId(to),
        }
    }

    fn group(self, group: &mut VertexGroup, var: VarId) {
        let Self { part, to, .. } = self;
        let number = part / 9;
        let label = Label(to as u8);
        match part % 9 {
            2 => group.output.var = var,
            3 => {
                if let Some(input) = pick(&mut group.inputs, number) {
                    input.var = var;
                }
            }
            4 => {
                let operands = std::iter::once(&mut group.output).chain(&mut group.inputs);
                let mut labels: Vec<_> = operands.flat_map(|each| &mut each.labels).collect();
                if let Some(old) = pick(&mut labels, number) {
                    **old = label;
                }
            }
            5 => drop(group.inputs.pop()),
            6 => group.inputs.push(Operand::new(var, &[to as u8])),
            7 => {
                group.vertex = match number % 9 {
                    0 => Vertex::Copy,
                    1 => Vertex::Assemble,
                    2 => Vertex::ReducePartials { over: label },
                    3 => Vertex::Reduce {
                        op: ReduceOp::Max,
                        scale: 1.0,
                    },
                    4 => Vertex::DynamicSlice { slot: label },
                    5 => Vertex::DynamicUpdate { slot: label },
                    6 => Vertex::Map(MapOp::OneHot { class: label }),
                    7 => Vertex::Map(MapOp::Unary(UnaryFn::Gelu)),
                    _ => Vertex::MultiSlice {
                        row: label,
                        first_row: to,
                    },
                }
            }
            _ => match &mut group.vertex {
                Vertex::MatMul {
                    method,
                    groups,
                    field,
                    input,
                    output,
                    input_group,
                    output_group,
                } => match number % 8 {
                    0 => *field = label,
                    1 => *input = label,
                    2 => *output = label,
                    3 => *input_group = to,
                    4 => *output_group = to,
                    5 => groups.push(label),
                    6 => *method = MatMulMethod::VerticalMac { groups: to },
                    _ => {
                        *method = MatMulMethod::Slic {
                            groups: to,
                            chains: to,
                        }
                    }
                },
                Vertex::MultiSlice { row, first_row } => match number % 2 {
                    0 => *row = label,
                    _ => *first_row = to,
                },
                _ => {}
            },
        }
    }
}

/// Steps that one run executes.
fn executed(program: &Program, steps: &[Step], depth: usize) -> u64 {
    let count = steps.iter().map(|step| match step {
        Step::Repeat { count, body } => {
            executed(program, body, depth).saturating_mul(u64::from(*count))
        }
        // Deeper than there are functions is a call that never ends, which is refused.
        Step::Call(id) if depth <= program.functions.len() => program
            .functions
            .get(*id)
            .map_or(1, |function| executed(program, &function.steps, depth + 1)),
        _ => 1,
    });
    count.fold(0, u64::saturating_add)
}

/// The time of this host.
struct HostClock(Instant);

impl HostClock {
    #[expect(clippy::disallowed_methods, reason = "a time-out is one of the host")]
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for HostClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// Loads a program and runs it for at most so long, and for its values as far as that is a matter
/// of moments.
pub(crate) fn run(program: &Program, timeout: Duration) -> Result<(), DeviceError> {
    let ports = Ports {
        clock: Arc::new(HostClock::start()),
        ..Ports::alone()
    };
    let manager = DeviceManager::new(machine(), ports);
    let attached = manager.attach_any(16, Connection::Always)?;
    let mut loaded = attached.load(Executable {
        name: "changed".into(),
        program: Arc::new(program.clone()),
        timing: options(),
        float_control: FloatControl::default(),
        host_sync_timeout: Some(timeout),
    })?;
    for (stream, _) in program.streams.iter() {
        let n_elements = 16;
        loaded.connect(stream, Ones { n_elements })?;
    }
    loaded.run(Mode::Time)?;
    if executed(program, &program.steps, 0) < 200 {
        loaded.run(Mode::TimeAndExecute)?;
    }
    Ok(())
}

/// A host that sends ones and takes everything.
struct Ones {
    n_elements: usize,
}

impl ipu_sim::device::HostStream for Ones {
    fn read(&mut self, _: ReplicaId) -> Result<Vec<f64>, StreamError> {
        Ok(vec![1.0; self.n_elements])
    }

    fn write(&mut self, _: ReplicaId, _: Vec<f64>) -> Result<(), StreamError> {
        Ok(())
    }
}
