//! Steps of a program with their costs: from [`Program`] to [`Schedule`].

use std::collections::BTreeMap;

use indexmap::IndexSet;
use smallvec::{SmallVec, smallvec};

use super::compute::{ComputeSets, flops};
use super::schedule::{Buffer, EndsId, Leaf, Moving, Schedule, Scope, Stream, Timed};
use super::tiles::AllTiles;
use super::timeline::{Activity, Channel, ConstantUsage, ProductFlops};
use super::traffic::Exchanges;
use crate::collective::Collectives;
use crate::cost::elementwise::Destination;
use crate::cost::elementwise::binary::{BinaryOp, binary_1d};
use crate::cost::memory;
use crate::cost::sync::sync_global;
use crate::exchange::time::ExchangeTime;
use crate::ids::{IdVec, IpuId, ReplicaId};
use crate::network::partition::OwnedRoute;
use crate::network::{Fold, Network};
use crate::numerics::DType;
use crate::program::{
    self, Collective, CollectiveKind, CollectiveTensor, ComputeSet, IpuCopy, LayoutId, Program,
    SourceId, Step, StreamId, Transfer, VertexGroup,
};
use crate::replica::{ReplicaError, ReplicaPlacement};
use crate::spec::MachineSpec;
use crate::topology::{BundleId, HostDirection, Topology};
use crate::units::{Bytes, Cycles};
use crate::vertex::{MapOp, Vertex};

/// The ends of a route beyond an IPU, by the IPUs of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ends {
    /// From one IPU to another.
    Copy(IpuId, IpuId),
    /// Between a host and the buffer beside an IPU.
    Buffer(IpuId, HostDirection),
    /// Between that buffer and the IPU.
    Host(IpuId, HostDirection),
    /// Between streaming memory and the IPU.
    Memory(IpuId, HostDirection),
}

impl Ends {
    fn route(
        self,
        placement: &ReplicaPlacement,
        topology: &Topology,
        replica: ReplicaId,
    ) -> Vec<BundleId> {
        let place = |ipu| placement.ipu(replica, ipu);
        match self {
            Self::Copy(from, to) => topology.route(place(from), place(to)),
            Self::Buffer(ipu, direction) => topology.route_buffer(place(ipu), direction),
            Self::Host(ipu, direction) => topology.route_host(place(ipu), direction),
            Self::Memory(ipu, direction) => topology.route_memory(place(ipu), direction),
        }
    }
}

/// The schedule of `program` on `machine`, whose links are `topology`.
pub(super) fn schedule(
    program: &Program,
    machine: &MachineSpec,
    topology: &Topology,
    fold: Fold,
) -> Result<Schedule, ReplicaError> {
    let placement = ReplicaPlacement::new(topology, program.n_replicas, program.n_ipus)?;
    let mut distinct = Distinct::default();
    for steps in program.functions.values().map(|function| &function.steps) {
        distinct.add(program, steps);
    }
    distinct.add(program, &program.steps);

    let n_tiles = machine.tile.tiles_per_ipu;
    let tiles = AllTiles::new(program, n_tiles);
    let traffic = distinct.exchanges.traffic(program, machine);
    let compute = distinct.compute.cycles(program, &tiles, &machine.tile);
    let phases = traffic
        .iter()
        .map(|phase| (!phase.is_empty()).then(|| phase.phase(machine)));
    let mut costs = Costs {
        program,
        machine,
        tiles,
        collectives: Collectives::new(placement, topology, machine, fold),
        placement,
        topology,
        compute,
        exchange: phases.collect(),
        distinct,
        ends: IndexSet::new(),
        streams: program
            .streams
            .values()
            .map(|stream| costs_of_stream(stream, machine))
            .collect(),
        additions: BTreeMap::new(),
    };
    let functions = program.functions.values();
    let functions = functions
        .map(|function| costs.steps(&function.steps))
        .collect();
    let steps = costs.steps(&program.steps);
    let owned = routes(&costs.ends, &placement, topology);
    let (network, partition) = Network::new(&owned, topology, machine.tile.clock, fold);
    let classes = classes(&partition.owners, program.n_replicas, fold);
    let n_ends = costs.ends.len();
    let routes = classes.iter().map(|&replica| {
        let route = |ends| {
            let number: usize = replica * n_ends + ends;
            (!owned[number].bundles.is_empty()).then(|| partition.routes[number])
        };
        (0..n_ends).map(route).collect()
    });
    Ok(Schedule {
        n_ipus: program.n_ipus,
        n_sources: program.sources.len(),
        n_sections: program.sections.len(),
        n_classes: u32::try_from(classes.len()).expect("no more than replicas"),
        start: match program.started_by_host {
            true => machine.tile.clock.cycles(machine.host.run),
            false => Cycles::ZERO,
        },
        routes: routes.collect(),
        network,
        n_bundles: topology.bundles().len(),
        route_max: owned
            .iter()
            .map(|route| route.bundles.len())
            .max()
            .unwrap_or(0),
        rounds: costs.collectives.into_rounds(),
        streams: costs.streams,
        functions,
        steps,
    })
}

/// The routes of all replicas, replica after replica.
fn routes(
    ends: &IndexSet<Ends>,
    placement: &ReplicaPlacement,
    topology: &Topology,
) -> Vec<OwnedRoute> {
    let mut routes = Vec::with_capacity(ends.len() * placement.n_replicas as usize);
    for replica in placement.replicas() {
        routes.extend((0..).zip(ends).map(|(label, ends)| OwnedRoute {
            label,
            owner: replica.0,
            bundles: ends.route(placement, topology, replica),
        }));
    }
    routes
}

/// The first replica of every class; of all if nothing reaches beyond an IPU.
fn classes(owners: &[u32], n_replicas: u32, fold: Fold) -> Vec<usize> {
    let n_replicas = n_replicas as usize;
    match (owners.is_empty(), fold) {
        (true, Fold::Alike) => vec![0],
        (true, Fold::Nothing) => (0..n_replicas).collect(),
        (false, _) => (0..n_replicas)
            .filter(|&replica| !owners[..replica].contains(&owners[replica]))
            .collect(),
    }
}

fn costs_of_stream(stream: &program::Stream, machine: &MachineSpec) -> Stream {
    Stream {
        depth: if stream.prefetch {
            stream.buffering_depth
        } else {
            0
        },
        latency: machine.tile.clock.cycles(machine.host.latency),
        buffer: None,
    }
}

/// What has to be costed, each once.
#[derive(Default)]
struct Distinct {
    compute: ComputeSets,
    exchanges: Exchanges,
}

impl Distinct {
    fn add(&mut self, program: &Program, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Compute(set) => {
                    self.compute.add(program, set);
                }
                Step::Exchange(exchange) => {
                    self.exchanges.add(program, exchange);
                }
                Step::Repeat { body, .. } => self.add(program, body),
                Step::IpuCopies { .. }
                | Step::Transfers { .. }
                | Step::Collective(_)
                | Step::Call(_)
                | Step::Section(_) => {}
            }
        }
    }
}

struct Costs<'a> {
    program: &'a Program,
    machine: &'a MachineSpec,
    tiles: AllTiles,
    topology: &'a Topology,
    placement: ReplicaPlacement,
    collectives: Collectives<'a>,
    /// Numbers the steps.
    distinct: Distinct,
    /// By number of the compute set.
    compute: Vec<Cycles>,
    /// By number of the phase; `None` where nothing moves between tiles.
    exchange: Vec<Option<ExchangeTime>>,
    /// Routes beyond the IPUs, each once.
    ends: IndexSet<Ends>,
    streams: IdVec<StreamId, Stream>,
    /// Additions inside collectives by what an IPU holds and in how many parts it is added.
    additions: BTreeMap<(Vec<(LayoutId, DType)>, u64), Cycles>,
}

impl Costs<'_> {
    fn steps(&mut self, steps: &[Step]) -> Vec<Timed> {
        let mut out = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Compute(set) => {
                    let number = self.distinct.compute.add(self.program, set);
                    let dispatch = self.machine.compute.dispatch;
                    let trust_ratios = trust_ratios(set);
                    let ratio = self.machine.compute.trust_ratio * trust_ratios;
                    let spends = smallvec![
                        (Activity::Dispatch, dispatch),
                        (Activity::Compute, self.compute[number] + ratio)
                    ];
                    let vertices = set.vertices.iter();
                    let assembles = |group: &VertexGroup| group.vertex == Vertex::Assemble;
                    let calls = memory::COPY_CALL * set.vertices.len() as u64;
                    let assembly = match set.vertices.iter().all(assembles) {
                        true => self.compute[number].saturating_sub(calls),
                        false => Cycles::ZERO,
                    };
                    let mut products = ProductFlops::default();
                    for group in vertices {
                        products.add(&flops(self.program, group), 1);
                    }
                    out.push(Timed::Leaf(Leaf {
                        usage: ConstantUsage {
                            dispatches: 1,
                            trust_ratios,
                            assembly,
                            ..ConstantUsage::default()
                        },
                        products,
                        ..local(set.source, set.ipu, spends)
                    }));
                }
                Step::Exchange(exchange) => {
                    let number = self.distinct.exchanges.add(self.program, exchange);
                    if let Some(phase) = self.exchange[number] {
                        let spends = smallvec![
                            (Activity::Launch, self.launch() + phase.route),
                            (Activity::Exchange, phase.busy)
                        ];
                        out.push(Timed::Leaf(Leaf {
                            usage: ConstantUsage {
                                launches: 1,
                                ..ConstantUsage::default()
                            },
                            ..local(exchange.source, exchange.ipu, spends)
                        }));
                    }
                }
                Step::IpuCopies { source, copies } => out.extend(self.ipu_copies(*source, copies)),
                Step::Transfers { source, transfers } => {
                    out.extend(self.transfers(*source, transfers));
                }
                Step::Collective(collective) => out.extend(self.collective(collective)),
                Step::Repeat { count, body } => out.push(Timed::Repeat {
                    count: *count,
                    body: self.steps(body),
                }),
                Step::Call(function) => out.push(Timed::Call(*function)),
                Step::Section(section) => out.push(Timed::Section(*section)),
            }
        }
        out
    }

    /// From the last tile's readiness to the first word sent.
    fn launch(&self) -> Cycles {
        let exchange = &self.machine.exchange;
        exchange.sync_max + exchange.phase_extra
    }

    fn ends(&mut self, ends: Ends) -> EndsId {
        EndsId(u32::try_from(self.ends.insert_full(ends).0).expect("few routes"))
    }

    /// A sync of the IPUs that take part, then all copies at once.
    fn ipu_copies(&mut self, source: SourceId, copies: &[IpuCopy]) -> Option<Timed> {
        let mut pairs: BTreeMap<(IpuId, IpuId), Bytes> = BTreeMap::new();
        for copy in copies {
            let (src, dst) = (&self.program.vars[copy.src], &self.program.vars[copy.dst]);
            *pairs.entry((src.ipu, dst.ipu)).or_default() += self.program.bytes_of(copy.src);
        }
        let mut ipus: SmallVec<[IpuId; 2]> = pairs.keys().flat_map(|&(a, b)| [a, b]).collect();
        ipus.sort_unstable();
        ipus.dedup();
        if ipus.is_empty() {
            return None;
        }
        let sync = self.sync(&ipus);
        let moving = pairs.iter().map(|(&(from, to), &bytes)| Moving {
            ends: self.ends(Ends::Copy(from, to)),
            bytes,
            stream: None,
        });
        Some(Timed::Leaf(Leaf {
            source,
            moving: moving.collect(),
            scope: Scope::Replica,
            spends: smallvec![(Activity::IpuCopy, sync)],
            products: ProductFlops::default(),
            waiting: Activity::IpuCopy,
            moves: smallvec![(Channel::IpuLink, pairs.values().copied().sum())],
            rounds: Vec::new(),
            usage: ConstantUsage::default(),
            ipus,
        }))
    }

    /// A sync of some IPUs of a replica: as long as that of the replica where it takes longest.
    fn sync(&self, ipus: &[IpuId]) -> Cycles {
        let syncs = self.placement.replicas().map(|replica| {
            let places: Vec<IpuId> = ipus
                .iter()
                .map(|&ipu| self.placement.ipu(replica, ipu))
                .collect();
            sync_global(&places, self.topology, self.machine)
        });
        syncs.max().unwrap_or(Cycles::ZERO)
    }

    /// One step for what the host sends and gets, one for streaming memory.
    fn transfers(&mut self, source: SourceId, transfers: &[Transfer]) -> Vec<Timed> {
        let of_host = |transfer: &&Transfer| {
            matches!(
                transfer,
                Transfer::HostRead { .. } | Transfer::HostWrite { .. }
            )
        };
        let (host, memory): (Vec<&Transfer>, Vec<&Transfer>) = transfers.iter().partition(of_host);
        let host = self.host_transfers(source, &host);
        host.into_iter()
            .chain(self.remote_transfers(source, &memory))
            .collect()
    }

    /// Elements of streams, on one or more IPUs: the host answers, then all move at once.
    fn host_transfers(&mut self, source: SourceId, transfers: &[&Transfer]) -> Option<Timed> {
        let ipu_of = |transfer: &Transfer| self.program.vars[transfer.var()].ipu;
        let mut ipus: SmallVec<[IpuId; 2]> = transfers.iter().map(|each| ipu_of(each)).collect();
        ipus.sort_unstable();
        ipus.dedup();
        if ipus.is_empty() {
            return None;
        }
        let mut moving: SmallVec<[Moving; 1]> = SmallVec::new();
        let mut moves: SmallVec<[(Channel, Bytes); 1]> = SmallVec::new();
        for transfer in transfers {
            let (stream, direction, channel) = match **transfer {
                Transfer::HostRead { stream, .. } => (stream, HostDirection::In, Channel::HostRead),
                Transfer::HostWrite { stream, .. } => {
                    (stream, HostDirection::Out, Channel::HostWrite)
                }
                Transfer::RemoteLoad { .. } | Transfer::RemoteStore { .. } => continue,
            };
            let ipu = self.program.vars[transfer.var()].ipu;
            let bytes = self.program.bytes_of(transfer.var());
            let buffer = Buffer {
                ends: self.ends(Ends::Buffer(ipu, direction)),
                bytes,
                direction,
                ipu,
            };
            let known = self.streams[stream].buffer.get_or_insert(buffer);
            assert_eq!(
                *known, buffer,
                "{stream} has one size, one direction and one IPU"
            );
            if direction == HostDirection::Out {
                // What the device sends is buffered in any case.
                self.streams[stream].depth = self.program.streams[stream].buffering_depth;
            }
            moving.push(Moving {
                ends: self.ends(Ends::Host(ipu, direction)),
                bytes,
                stream: Some((stream, direction)),
            });
            moves.push((channel, bytes));
        }
        let latency = self.machine.tile.clock.cycles(self.machine.host.latency);
        Some(Timed::Leaf(Leaf {
            source,
            ipus,
            scope: Scope::Replica,
            spends: smallvec![(Activity::Host, latency)],
            products: ProductFlops::default(),
            moving,
            waiting: Activity::Host,
            moves,
            rounds: Vec::new(),
            usage: ConstantUsage {
                answers: 1,
                ..ConstantUsage::default()
            },
        }))
    }

    /// Loads and stores of streaming memory, on one or more IPUs; all of a replica meet for them.
    fn remote_transfers(&mut self, source: SourceId, transfers: &[&Transfer]) -> Option<Timed> {
        let ipu = self.program.vars[transfers.first()?.var()].ipu;
        let mut by_end: BTreeMap<(IpuId, HostDirection), Bytes> = BTreeMap::new();
        let mut moves: SmallVec<[(Channel, Bytes); 1]> = SmallVec::new();
        for transfer in transfers {
            let (direction, channel) = match transfer {
                Transfer::RemoteStore { .. } => (HostDirection::Out, Channel::RemoteStore),
                _ => (HostDirection::In, Channel::RemoteLoad),
            };
            let bytes = self.program.bytes_of(transfer.var());
            let ipu = self.program.vars[transfer.var()].ipu;
            *by_end.entry((ipu, direction)).or_default() += bytes;
            moves.push((channel, bytes));
        }
        let moving = by_end.into_iter().map(|((ipu, direction), bytes)| Moving {
            ends: self.ends(Ends::Memory(ipu, direction)),
            bytes,
            stream: None,
        });
        let moving = moving.collect();
        let latency = self
            .machine
            .tile
            .clock
            .cycles(self.machine.streaming_memory.latency);
        let ipus = self.replica_from(ipu);
        // An IPU alone still syncs with its gateway.
        let sync = self.sync(&ipus).max(self.machine.sync.global);
        let start = sync + latency;
        Some(Timed::Leaf(Leaf {
            source,
            ipus,
            scope: Scope::Replica,
            spends: smallvec![(Activity::StreamingMemory, start)],
            products: ProductFlops::default(),
            moving,
            waiting: Activity::StreamingMemory,
            moves,
            rounds: Vec::new(),
            usage: ConstantUsage {
                accesses: 1,
                ..ConstantUsage::default()
            },
        }))
    }

    /// All IPUs of a replica, `first` in front: what reaches beyond them concerns them all.
    fn replica_from(&self, first: IpuId) -> SmallVec<[IpuId; 2]> {
        let all = (0..self.program.n_ipus).map(IpuId);
        std::iter::once(first)
            .chain(all.filter(|&ipu| ipu != first))
            .collect()
    }

    /// The IPUs that hold something work side by side, each with the same IPU of the other
    /// replicas; the other IPUs of the replica take part in the sync.
    fn collective(&mut self, collective: &Collective) -> Vec<Timed> {
        let mut ipus: BTreeMap<IpuId, Bytes> = BTreeMap::new();
        for tensor in &collective.tensors {
            let whole = match collective.kind {
                CollectiveKind::AllGather => tensor.dst,
                CollectiveKind::AllReduce
                | CollectiveKind::ReduceScatter
                | CollectiveKind::TakeShard => tensor.src,
            };
            let ipu = self.program.vars[tensor.src].ipu;
            *ipus.entry(ipu).or_default() += self.program.bytes_of(whole);
        }
        let Some(&first) = ipus.keys().next() else {
            return Vec::new();
        };
        if collective.kind == CollectiveKind::TakeShard {
            let shards = ipus.keys().map(|&ipu| self.take_shard(collective, ipu));
            return shards.collect();
        }
        let (program, machine, tiles) = (self.program, self.machine, &self.tiles);
        let additions = &mut self.additions;
        let mut add = |ipu: IpuId, parts: u64| {
            let tensors = collective
                .tensors
                .iter()
                .map(|tensor| &program.vars[tensor.src]);
            let held = tensors.filter(|var| var.ipu == ipu);
            let key = (held.map(|var| (var.layout, var.dtype)).collect(), parts);
            let cycles = additions.entry(key);
            *cycles
                .or_insert_with_key(|(held, parts)| adding(program, machine, tiles, held, *parts))
        };
        let taken = self.collectives.take(collective.kind, &ipus, &mut add);
        let rounds = taken
            .rounds
            .iter()
            .map(|(_, times)| u64::from(*times))
            .sum();
        let is_number = |tensor: &CollectiveTensor| {
            let bytes = program.bytes_of(tensor.src);
            bytes == program.vars[tensor.src].dtype.size()
        };
        let is_scalar = collective.tensors.iter().all(is_number);
        vec![Timed::Leaf(Leaf {
            source: collective.source,
            ipus: self.replica_from(first),
            scope: Scope::AllReplicas,
            spends: smallvec![
                (Activity::Collective, taken.links),
                (Activity::Compute, taken.adds)
            ],
            products: ProductFlops::default(),
            moving: SmallVec::new(),
            waiting: Activity::Collective,
            moves: smallvec![(Channel::Collective, taken.sent)],
            rounds: taken.rounds,
            usage: ConstantUsage {
                collectives: 1,
                scalar_sums: u64::from(is_scalar),
                rounds,
                links: taken.copies,
                latency: taken.latency,
                latency_hops: taken.latency_hops,
                gateways: taken.gateways,
                ..ConstantUsage::default()
            },
        })]
    }

    /// Every tile copies its part of the shard; no replica needs another.
    fn take_shard(&self, collective: &Collective, ipu: IpuId) -> Timed {
        let mut bytes = vec![0; self.machine.tile.tiles_per_ipu as usize];
        let tensors = collective.tensors.iter();
        for tensor in tensors.filter(|tensor| self.program.vars[tensor.src].ipu == ipu) {
            let shard = &self.program.vars[tensor.dst];
            let layout = self.program.layout(shard.layout);
            let stored = self.tiles.of(shard.layout).stored_elements(layout);
            for (sum, stored) in bytes.iter_mut().zip(stored) {
                *sum += stored * shard.dtype.size().0;
            }
        }
        let most = Bytes(bytes.into_iter().max().unwrap_or(0));
        let spends = smallvec![
            (Activity::Dispatch, self.machine.compute.dispatch),
            (Activity::Compute, memory::copy(most, &self.machine.tile))
        ];
        Timed::Leaf(Leaf {
            usage: ConstantUsage {
                dispatches: 1,
                ..ConstantUsage::default()
            },
            ..local(collective.source, ipu, spends)
        })
    }
}

/// Weights of a compute set that LAMB moves by the ratio of two norms.
fn trust_ratios(set: &ComputeSet) -> u64 {
    let is_ratio =
        |group: &&VertexGroup| matches!(group.vertex, Vertex::Map(MapOp::LambUpdate { .. }));
    set.vertices.iter().filter(is_ratio).count() as u64
}

/// Adding up one of `parts` parts of tensors of one IPU.
fn adding(
    program: &Program,
    machine: &MachineSpec,
    tiles: &AllTiles,
    tensors: &[(LayoutId, DType)],
    parts: u64,
) -> Cycles {
    let mut sums = vec![Cycles::ZERO; machine.tile.tiles_per_ipu as usize];
    for &(layout, dtype) in tensors {
        let stored = tiles.of(layout).stored_elements(program.layout(layout));
        let mut known = BTreeMap::from([(0, Cycles::ZERO)]);
        for (sum, stored) in sums.iter_mut().zip(stored) {
            *sum += *known.entry(stored).or_insert_with(|| {
                let elements = stored.div_ceil(parts);
                let (op, destination) = (BinaryOp::Add, Destination::InPlace);
                binary_1d(op, dtype, destination, elements, &machine.tile)
            });
        }
    }
    machine.compute.dispatch + sums.into_iter().max().unwrap_or(Cycles::ZERO)
}

fn local(source: SourceId, ipu: IpuId, spends: SmallVec<[(Activity, Cycles); 2]>) -> Leaf {
    Leaf {
        source,
        ipus: smallvec![ipu],
        scope: Scope::Replica,
        spends,
        products: ProductFlops::default(),
        moving: SmallVec::new(),
        waiting: Activity::Idle,
        moves: SmallVec::new(),
        rounds: Vec::new(),
        usage: ConstantUsage::default(),
    }
}
