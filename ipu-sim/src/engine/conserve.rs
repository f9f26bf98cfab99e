//! No byte is lost or made on the way: what links carried against what replicas moved.
//!
//! What enters a port of a host or a gateway leaves it; hosts and streaming memory give and take
//! what the transfers of all replicas say, and so do all IPUs together.

use std::collections::BTreeMap;

use super::timeline::{Channel, Timeline};
use crate::program::Program;
use crate::topology::{Bundle, Node, Topology};
use crate::units::Bytes;

/// Checks a timeline of `program` on a machine whose links are `topology`.
///
/// # Panics
///
/// If a byte is missing somewhere, or is there twice: a bug of the engine.
pub(super) fn check(timeline: &Timeline, program: &Program, topology: &Topology) {
    let all = |channel| timeline.moved.on(channel) * u64::from(program.n_replicas);
    let (stores, loads) = (all(Channel::RemoteStore), all(Channel::RemoteLoad));
    let (writes, reads) = (all(Channel::HostWrite), all(Channel::HostRead));
    let passed = Passed::new(timeline, topology);
    assert_eq!(passed.memory, stores + loads, "bytes of streaming memory");
    // Without gateways, streaming memory is the host's.
    let (own, of_host) = match topology.has_gateways() {
        true => ([stores, loads], [Bytes::ZERO; 2]),
        false => ([Bytes::ZERO; 2], [stores, loads]),
    };
    let [mut hosts, mut gateways, mut ipus] = [[Bytes::ZERO; 2]; 3];
    for (&node, &[entered, left]) in &passed.nodes {
        let sum = match node {
            Node::Host(_) => &mut hosts,
            Node::Gateway(_) => {
                let memory = match topology.has_gateways() {
                    true => passed.beside.get(&node).copied().unwrap_or_default(),
                    false => Bytes::ZERO,
                };
                let lost = Bytes(entered.0.abs_diff(left.0));
                assert!(lost <= memory, "{node:?}: {entered} entered, {left} left");
                &mut gateways
            }
            Node::Ipu(_) => &mut ipus,
            Node::HostPort(_) => {
                assert_eq!(entered, left, "bytes through {node:?}");
                continue;
            }
            Node::StreamingMemory(_) => continue,
        };
        sum[0] += entered;
        sum[1] += left;
    }
    let expected = [writes + of_host[0], reads + of_host[1]];
    assert_eq!(hosts, expected, "bytes of hosts");
    let through = [gateways[0] + own[1], gateways[1] + own[0]];
    assert_eq!(through[0], through[1], "bytes through gateways");
    let through = [ipus[0] + writes + stores, ipus[1] + reads + loads];
    assert_eq!(through[0], through[1], "bytes of IPUs");
}

/// Bytes that crossed links, by their ends.
#[derive(Default)]
struct Passed {
    /// What entered a node and what left it, ports of streaming memory aside.
    nodes: BTreeMap<Node, [Bytes; 2]>,
    /// What the port of streaming memory beside a node carried, which serves both directions.
    beside: BTreeMap<Node, Bytes>,
    /// What all those ports carried.
    memory: Bytes,
}

impl Passed {
    fn new(timeline: &Timeline, topology: &Topology) -> Self {
        let mut passed = Self::default();
        let bundles = topology.bundles().values();
        for (&Bundle { from, to, .. }, &carried) in bundles.zip(timeline.carried.values()) {
            if let Node::StreamingMemory(_) = to {
                *passed.beside.entry(from).or_default() += carried;
                passed.memory += carried;
                continue;
            }
            passed.nodes.entry(to).or_default()[0] += carried;
            passed.nodes.entry(from).or_default()[1] += carried;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Mode, Options, time};
    use crate::ids::{Id, IpuId};
    use crate::layout::{AxisSplit, Layout};
    use crate::numerics::DType;
    use crate::program::{RemoteBuffer, Step, Stream, Transfer, VarKind, Variable};
    use crate::spec::fixtures::machine;
    use crate::topology::BundleId;

    /// Two replicas of an IPU that read from the host, store and load 400 bytes, and write 400.
    fn program() -> Program {
        let mut program = Program::new(1, 2);
        let layout = program.add_layout(Layout::row_major(vec![AxisSplit::whole(100)]));
        let var = program.vars.push(Variable {
            name: "x".into(),
            dtype: DType::F32,
            ipu: IpuId(0),
            layout,
            kind: VarKind::Activation,
        });
        let mut stream = || {
            program.streams.push(Stream {
                name: "stream".into(),
                prefetch: false,
                buffering_depth: 1,
            })
        };
        let (comes, leaves) = (stream(), stream());
        let buffer = program.remote_buffers.push(RemoteBuffer {
            name: "buffer".into(),
            bytes: Bytes(400),
        });
        let source = program.add_source("all", "test");
        let transfers = [
            Transfer::HostRead { stream: comes, var },
            Transfer::RemoteStore { buffer, var },
            Transfer::RemoteLoad { buffer, var },
            Transfer::HostWrite {
                stream: leaves,
                var,
            },
        ];
        let step = |transfer| Step::Transfers {
            source,
            transfers: vec![transfer],
        };
        program.steps = transfers.map(step).into();
        program
    }

    /// A byte more or less on any link of a run is noticed.
    #[test]
    fn a_byte_too_many_or_too_few_is_noticed() {
        let program = program();
        for name in ["mk2-pod16", "mk1-server16"] {
            let machine = machine(name);
            let options = Options {
                mode: Mode::Folded,
                trace_depth: 0,
            };
            let timeline = time(&program, &machine, options).unwrap();
            let topology = Topology::new(&machine);
            let n_bundles = topology.bundles().len();
            let mut used = 0;
            for bundle in (0..n_bundles).map(BundleId::from_index) {
                let noticed = |change: fn(&mut Bytes)| {
                    let mut wrong = timeline.clone();
                    change(&mut wrong.carried[bundle]);
                    std::panic::catch_unwind(|| check(&wrong, &program, &topology)).is_err()
                };
                let ends = &topology.bundles()[bundle];
                let between_ipus = matches!((ends.from, ends.to), (Node::Ipu(_), Node::Ipu(_)));
                // A link from IPU to IPU is the only thing that may carry what nobody sent.
                assert_eq!(noticed(|bytes| bytes.0 += 1), !between_ipus, "{ends:?}");
                if timeline.carried[bundle] > Bytes::ZERO {
                    used += 1;
                    assert!(noticed(|bytes| bytes.0 -= 1), "{ends:?}");
                }
            }
            assert!(used >= 5, "{name}: {used} links");
        }
    }
}
