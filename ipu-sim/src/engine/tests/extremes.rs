//! Every constant at both ends of its range, through a whole run: nothing overflows.

use std::fmt::Write as _;

use super::*;
use crate::execute;
use crate::ids::{ReplicaId, TileId};
use crate::program::{Program, RemoteBufferId};
use crate::spec::constant::{Class, ConstantId, Kind};
use crate::verify::{VerifyError, Violation};
use crate::weigh;

/// A program of two replicas of two IPUs that does something of everything, `elements` at a time.
fn program(elements: u32) -> Program {
    let mut program = Program::new(2, 2);
    program.started_by_host = true;
    let source = program.add_source("work", "test");
    let mut spread = |elements: u32, parts| {
        let axis = AxisSplit::cut(elements, &[Cut::even(parts)]);
        program.add_layout(Layout::row_major(vec![axis]))
    };
    let (even, wide) = (spread(elements, 32), spread(elements, 16));
    let shard = spread(elements / 2, 32);
    let mut add = |ipu, layout, kind| {
        program.vars.push(Variable {
            name: "x".into(),
            dtype: DType::F16,
            ipu: IpuId(ipu),
            layout,
            kind,
        })
    };
    let [here, there] = [0, 1].map(|ipu| add(ipu, even, VarKind::Activation));
    let moved = add(0, wide, VarKind::Temporary);
    let part = add(0, shard, VarKind::Weight);
    let [comes, leaves] = ["in", "out"].map(|name| {
        program.streams.push(Stream {
            name: name.into(),
            prefetch: true,
            buffering_depth: 2,
        })
    });
    let bytes = Bytes(u64::from(elements) * 2);
    let name = "buffer".into();
    let buffer = program.remote_buffers.push(RemoteBuffer { name, bytes });
    let ipu = IpuId(0);
    let fill = Step::Compute(ComputeSet {
        source,
        ipu,
        vertices: vec![VertexGroup {
            vertex: Vertex::Fill(0.0),
            output: Operand::new(here, &[0]),
            inputs: SmallVec::new(),
        }],
    });
    let exchange = Step::Exchange(Exchange {
        source,
        ipu,
        copies: vec![TileCopy {
            src: program.view(here),
            dst: program.view(moved),
        }],
    });
    let copies = Step::IpuCopies {
        source,
        copies: vec![IpuCopy {
            src: here,
            dst: there,
        }],
    };
    let transfer = |transfer| Step::Transfers {
        source,
        transfers: vec![transfer],
    };
    let collective = |kind, src, dst| {
        Step::Collective(Collective {
            source,
            kind,
            tensors: vec![CollectiveTensor { src, dst }],
        })
    };
    let (stream, var) = (comes, here);
    let body = vec![
        transfer(Transfer::HostRead { stream, var }),
        fill,
        exchange,
        copies,
        transfer(Transfer::RemoteStore { buffer, var }),
        transfer(Transfer::RemoteLoad { buffer, var }),
        collective(CollectiveKind::AllReduce, here, here),
        collective(CollectiveKind::ReduceScatter, here, part),
        transfer(Transfer::HostWrite {
            stream: leaves,
            var: here,
        }),
    ];
    program.steps = vec![Step::Repeat { count: 3, body }];
    program
}

struct Host(usize);

impl execute::Host for Host {
    fn read(&mut self, _: ReplicaId, _: StreamId) -> Result<Vec<f64>, execute::StreamError> {
        Ok(vec![1.0; self.0])
    }

    fn write(
        &mut self,
        _: ReplicaId,
        _: StreamId,
        _: Vec<f64>,
    ) -> Result<(), execute::StreamError> {
        Ok(())
    }
}

/// Verifies, times and weighs; what the machine has no room for is refused.
fn run(program: &Program, machine: &MachineSpec) {
    for mode in [Mode::Folded, Mode::Unfolded] {
        let options = Options {
            mode,
            trace_depth: 2,
        };
        match time(program, machine, options) {
            Ok(timeline) => assert!(timeline.total >= timeline.start),
            Err(VerifyError::Replicas(_)) => return,
            Err(VerifyError::BadProgram(error)) => {
                let refused = matches!(
                    error.violation,
                    Violation::TooLong { .. } | Violation::TooManyTiles { .. }
                );
                assert!(refused, "{error}");
                return;
            }
        }
    }
    let weight = weigh::weigh(program, machine).unwrap();
    if let Err(error) = weight.verdict() {
        assert!(error.to_string().starts_with("out of"));
    }
    let at = (IpuId(0), TileId(0));
    let curves = weigh::live_curves(program, machine, &[at]);
    assert!(!curves[0].is_empty());
    let parts = weigh::weigh_parts(program, machine, at.0, &[&|_| true]);
    assert_eq!(parts.len(), 1);
    let _ = weigh::fits(program, machine, &weight);
}

/// As roomy as a description can say, so that a constant of memory or grid may be large.
fn roomy() -> MachineSpec {
    let [most, grid] = ["70368744177664 B", "1024"];
    let values = [
        (ConstantId::ChipMemory, most),
        (ConstantId::MemoryExecutable, most),
        (ConstantId::MemoryInterleaved, "0 B"),
        (ConstantId::MemoryLoader, "0 B"),
        (ConstantId::MemoryStackWorker, "0 B"),
        (ConstantId::MemoryStackSupervisor, "0 B"),
        (ConstantId::ChipTilesPerExchangeBus, "1"),
        (ConstantId::ExchangeColumns, grid),
        (ConstantId::ExchangeRows, grid),
        (ConstantId::LinksLinksPerIpu, "65536"),
        (ConstantId::LinksLinksPerRung, "16384"),
        (ConstantId::LinksRaw, "1000000000000000000 B/s"),
    ];
    let kind = Kind::Assumed;
    small().with_all(values, kind, "what if").unwrap()
}

/// What must change with a constant, so that the machine agrees with it.
fn companions(id: ConstantId, value: &str) -> Vec<(ConstantId, &str)> {
    let no_stacks = [
        (ConstantId::MemoryLoader, "0 B"),
        (ConstantId::MemoryStackWorker, "0 B"),
        (ConstantId::MemoryStackSupervisor, "0 B"),
    ];
    let memory = |[all, executable, interleaved]: [_; 3]| {
        let regions = [
            (ConstantId::ChipMemoryElement, "1 B"),
            (ConstantId::ChipMemory, all),
            (ConstantId::MemoryExecutable, executable),
            (ConstantId::MemoryInterleaved, interleaved),
        ];
        regions.into_iter().chain(no_stacks).collect()
    };
    match (id, value) {
        (ConstantId::SystemIpusPerMachine, "65536") => {
            vec![(ConstantId::SystemIpusPerRack, value)]
        }
        (ConstantId::SystemIpusPerRack, "1") => vec![(ConstantId::SystemIpusPerMachine, value)],
        (ConstantId::ChipTilesPerExchangeBus, "65536") => vec![(ConstantId::ChipTiles, value)],
        (ConstantId::LinksLinksPerRung, "1") => vec![(ConstantId::LinksLinksPerFlow, value)],
        (ConstantId::LinksRaw, "1000000 B/s") => vec![(ConstantId::LinksUsable, value)],
        (ConstantId::ChipMemory | ConstantId::MemoryExecutable, "1 B") => {
            memory([value, value, "0 B"])
        }
        (ConstantId::MemoryInterleaved, "1 B") => memory(["2 B", "1 B", value]),
        _ => Vec::new(),
    }
}

#[test]
fn every_constant_at_both_ends_of_its_range() {
    let programs = [64, 1 << 30].map(program);
    let machines = [small(), roomy()];
    let mut refused = String::new();
    for &id in ConstantId::ALL {
        for value in crate::spec::fixtures::ends(id) {
            let mut values = companions(id, &value);
            values.push((id, &value));
            let mut changed = machines.iter().filter_map(|machine| {
                let values = values.iter().copied();
                machine.with_all(values, Kind::Assumed, "what if").ok()
            });
            match changed.next() {
                Some(machine) => programs.iter().for_each(|program| run(program, &machine)),
                None => writeln!(refused, "{id} = {value}").unwrap(),
            }
        }
    }
    // An exchange bus has no more tiles than an IPU, an IPU has links for one rung and two rails, and a tile has memory for both regions and for
    // all stacks.
    expect![[r#"
        chip.tiles_per_exchange_bus = 65536
        links.links_per_ipu = 1
        links.links_per_rung = 65536
        links.links_per_rail = 65536
        links.links_per_flow = 65536
        memory.interleaved = 70368744177664 B
        memory.stack_worker = 70368744177664 B
    "#]]
    .assert_eq(&refused);
}

/// All prices of memory, and then all times, at their most together.
#[test]
fn all_prices_at_their_most_together() {
    let most = |sections: &[&str]| {
        let chosen = ConstantId::ALL.iter().copied().filter(|id| {
            let is_price = id.class() == Class::Time || id.section() == "memory";
            let own = [
                ConstantId::MemoryExecutable,
                ConstantId::MemoryInterleaved,
                ConstantId::MemoryLoader,
                ConstantId::MemoryStackWorker,
                ConstantId::MemoryStackSupervisor,
            ];
            sections.contains(&id.section()) && is_price && !own.contains(id)
        });
        let values: Vec<(ConstantId, String)> = chosen
            .map(|id| {
                let most = crate::spec::fixtures::ends(id).pop();
                (id, most.expect("a range has ends"))
            })
            .collect();
        assert!(!values.is_empty());
        let kind = Kind::Assumed;
        small().with_all(values, kind, "what if").unwrap()
    };
    let times = [
        "compute",
        "exchange",
        "sync",
        "links",
        "gateway",
        "host",
        "streaming_memory",
    ];
    for machine in [most(&["memory"]), most(&times)] {
        [64, 1 << 30]
            .iter()
            .for_each(|&n| run(&program(n), &machine));
    }
    let executed = program(64);
    let mut memory = execute::Memory::new(&executed).unwrap();
    let mut remote = execute::RemoteMemory::new(&executed);
    execute::run(&mut memory, &mut Host(64), &mut remote).unwrap();
    assert!(remote.read(ReplicaId(1), RemoteBufferId(0)).is_some());
}

/// A matrix of which 1024 tiles have a row each, and then a column each: a million messages.
#[test]
fn the_memory_of_a_million_messages_at_their_most() {
    let mut program = Program::new(1, 1);
    let source = program.add_source("work", "test");
    let (cut, whole) = (
        AxisSplit::cut(1024, &[Cut::even(1024)]),
        AxisSplit::whole(1024),
    );
    let [rows, columns] = [[cut.clone(), whole.clone()], [whole, cut]].map(|axes| {
        let layout = program.add_layout(Layout::row_major(axes.into()));
        program.vars.push(Variable {
            name: "x".into(),
            dtype: DType::F16,
            ipu: IpuId(0),
            layout,
            kind: VarKind::Weight,
        })
    });
    program.steps = vec![Step::Exchange(Exchange {
        source,
        ipu: IpuId(0),
        copies: vec![TileCopy {
            src: program.view(rows),
            dst: program.view(columns),
        }],
    })];
    let id = ConstantId::MemoryExchangeCodePerFragment;
    let most = crate::spec::fixtures::ends(id).pop();
    let machine = crate::spec::fixtures::machine("mk2-m2000");
    let machine = machine.with(id, &most.expect("a range has ends")).unwrap();
    run(&program, &machine);
    let weight = weigh::weigh(&program, &machine).unwrap();
    let code = weight.ipus[IpuId(0)].sum(weigh::Category::InternalExchangeCode);
    assert!(code > Bytes(1023 * 1024 * (1 << 20)), "{code}");
}
