//! Eight numbers go through two IPUs, in two replicas: compute, exchange, copy, all-reduce.

use std::error::Error;
use std::sync::Arc;

use ipu_sim::device::{Connection, DeviceManager, Executable, Mode, Ports};
use ipu_sim::engine::{self, Activity, Channel};
use ipu_sim::execute::FloatControl;
use ipu_sim::ids::{IpuId, ReplicaId};
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::*;
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::{Bytes, Cycles};
use ipu_sim::vertex::{BinaryFn, MapOp, UnaryFn, Vertex};

/// The eight numbers in even pieces, one on each of the first `tiles` tiles.
fn on_tiles(tiles: u32) -> Layout {
    Layout::row_major(vec![AxisSplit::cut(8, &[Cut::even(tiles)])])
}

/// `output[i] = vertex(inputs[i])` on the tiles that hold `output[i]`.
fn compute(source: SourceId, ipu: u32, vertex: Vertex, output: VarId, inputs: &[VarId]) -> Step {
    let operand = |var: VarId| Operand::new(var, &[0]);
    Step::Compute(ComputeSet {
        source,
        ipu: IpuId(ipu),
        vertices: vec![VertexGroup {
            vertex,
            output: operand(output),
            inputs: inputs.iter().map(|&var| operand(var)).collect(),
        }],
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    // Two replicas of two IPUs each: a program is that of one replica.
    let mut program = Program::new(2, 2);
    let (fours, twos) = (
        program.add_layout(on_tiles(4)),
        program.add_layout(on_tiles(2)),
    );
    let mut variable = |name: &str, ipu: u32, layout: LayoutId| {
        program.vars.push(Variable {
            name: name.to_owned(),
            dtype: DType::F32,
            ipu: IpuId(ipu),
            layout,
            kind: VarKind::Weight,
        })
    };
    let x = variable("x", 0, fours);
    let gathered = variable("gathered", 0, twos);
    let arrived = variable("arrived", 1, twos);
    let total = variable("total", 1, twos);

    // A source is a line of the profile.
    let square = program.add_source("square", "compute");
    let gather = program.add_source("gather", "exchange");
    let send = program.add_source("send", "copy");
    let double = program.add_source("double", "compute");
    let sum = program.add_source("sum", "all-reduce");
    program.steps = vec![
        compute(
            square,
            0,
            Vertex::Map(MapOp::Unary(UnaryFn::Square)),
            x,
            &[x],
        ),
        Step::Exchange(Exchange {
            source: gather,
            ipu: IpuId(0),
            copies: vec![TileCopy {
                src: program.view(x),
                dst: program.view(gathered),
            }],
        }),
        Step::IpuCopies {
            source: send,
            copies: vec![IpuCopy {
                src: gathered,
                dst: arrived,
            }],
        },
        compute(
            double,
            1,
            Vertex::Map(MapOp::Binary(BinaryFn::Add)),
            arrived,
            &[arrived, arrived],
        ),
        Step::Collective(Collective {
            source: sum,
            kind: CollectiveKind::AllReduce,
            tensors: vec![CollectiveTensor {
                src: arrived,
                dst: total,
            }],
        }),
    ];

    // One IPU-M2000 has the four IPUs: devices 0 to 3 are single ones, 4 and 5 pairs, 6 all.
    let machine = MachineSpec::shipped("mk2-m2000")?;
    let manager = DeviceManager::new(machine.clone(), Ports::alone());
    let mut device = manager
        .attach_any(4, Connection::Always)?
        .load(Executable {
            name: "two IPUs".to_owned(),
            program: Arc::new(program),
            timing: engine::Options {
                mode: engine::Mode::Folded,
                trace_depth: 0,
            },
            float_control: FloatControl::default(),
            host_sync_timeout: None,
        })?;
    assert_eq!(device.attached().device().id.0, 6);

    let (first, second) = (ReplicaId(0), ReplicaId(1));
    device.write(first, x, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])?;
    device.write(second, x, &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 10.0])?;
    let timeline = device.run(Mode::TimeAndExecute)?;

    // Executed: twice the squares, summed over the replicas, which both have.
    let expected = [2.0, 8.0, 18.0, 32.0, 52.0, 74.0, 100.0, 328.0];
    assert_eq!(device.read(first, total)?, expected);
    assert_eq!(device.read(second, total)?, expected);

    // Timed: every cycle of an IPU went into something.
    for ipu in timeline.ipus.values() {
        assert_eq!(ipu.tally.spent.total(), timeline.total);
    }
    assert_eq!(device.counters()?.cycles, timeline.total);
    // IPU 1 computes nothing before the numbers have crossed a link.
    let crossing = machine.tile.clock.cycles(machine.links.latency);
    let spent = timeline.ipus[IpuId(1)].tally.spent;
    assert!(spent.on(Activity::Idle) + spent.on(Activity::IpuCopy) >= crossing);
    assert!(spent.on(Activity::Compute) > Cycles::ZERO);
    // Eight floats from IPU to IPU. In a ring of two, a replica sends half of its sum to be
    // reduced, and the other half when it is.
    assert_eq!(timeline.moved.on(Channel::IpuLink), Bytes(32));
    assert_eq!(timeline.moved.on(Channel::Collective), Bytes(32));
    Ok(())
}
