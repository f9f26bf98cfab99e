//! Steps of a program with their costs: from [`Program`] to [`Schedule`].

use std::collections::BTreeMap;

use smallvec::{SmallVec, smallvec};

use super::compute::{ComputeSets, flops};
use super::schedule::{Leaf, Line, Occupied, Schedule, Timed};
use super::tiles::AllTiles;
use super::timeline::{Activity, Channel};
use super::traffic::Exchanges;
use crate::cost::links::rings::{self, Ring};
use crate::cost::links::{Flow, SharedTransfer, host_stream, inter_ipu_copy, remote_transfer};
use crate::cost::memory;
use crate::error::Result;
use crate::exchange::PhaseTime;
use crate::ids::{IpuId, ReplicaId};
use crate::program::{
    Collective, CollectiveKind, IpuCopy, Program, SourceId, Step, StreamId, Transfer,
};
use crate::spec::MachineSpec;
use crate::topology::{ReplicaPlacement, Topology};
use crate::units::{Bytes, Cycles, Flops};

/// Shared lines of one IPU-Machine.
#[derive(Clone, Copy, Debug)]
enum LineKind {
    FromHost,
    ToHost,
    StreamingMemory,
}

const LINES_PER_MACHINE: u32 = 3;

/// The schedule of `program` on `machine`.
pub(super) fn schedule(program: &Program, machine: &MachineSpec) -> Result<Schedule> {
    let topology = Topology::new(machine);
    let placement = ReplicaPlacement::new(&topology, program.n_replicas, program.n_ipus)?;
    let mut distinct = Distinct::default();
    for steps in program.functions.values().map(|function| &function.steps) {
        distinct.add(program, steps);
    }
    distinct.add(program, &program.steps);

    let n_tiles = machine.tile.tiles_per_ipu;
    let tiles = AllTiles::new(program, n_tiles);
    let traffic = distinct.exchanges.traffic(program, machine);
    let compute = distinct.compute.cycles(program, &tiles, &machine.tile);
    let mut costs = Costs {
        program,
        machine,
        tiles,
        rings: rings::rings(&placement, &topology, machine),
        placement,
        topology,
        compute,
        exchange: traffic
            .iter()
            .map(|phase| (!phase.is_empty()).then(|| phase.phase(machine)))
            .collect(),
        distinct,
        copies: BTreeMap::new(),
    };
    let functions = program.functions.values();
    let functions = functions
        .map(|function| costs.steps(&function.steps))
        .collect();
    let schedule = Schedule {
        n_ipus: program.n_ipus,
        n_lines: costs.n_lines(),
        n_sources: program.sources.len(),
        n_streams: program.streams.len(),
        n_sections: program.sections.len(),
        functions,
        steps: costs.steps(&program.steps),
    };
    Ok(schedule.link())
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
    topology: Topology,
    placement: ReplicaPlacement,
    rings: Vec<Ring>,
    /// Numbers the steps.
    distinct: Distinct,
    /// By number of the compute set.
    compute: Vec<Cycles>,
    /// By number of the phase; `None` where nothing moves between tiles.
    exchange: Vec<Option<PhaseTime>>,
    /// Inter-IPU copies by the bytes between pairs of IPUs of a replica.
    copies: BTreeMap<Vec<(IpuId, IpuId, Bytes)>, Cycles>,
}

impl Costs<'_> {
    fn steps(&mut self, steps: &[Step]) -> Vec<Timed> {
        let mut out = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Compute(set) => {
                    let number = self.distinct.compute.add(self.program, set);
                    let dispatch = self.machine.compute.dispatch;
                    let spends = smallvec![
                        (Activity::Sync, dispatch),
                        (Activity::Compute, self.compute[number])
                    ];
                    out.push(Timed::Leaf(Leaf {
                        flops: set
                            .vertices
                            .iter()
                            .map(|group| flops(self.program, group))
                            .sum(),
                        ..local(set.source, set.ipu, spends)
                    }));
                }
                Step::Exchange(exchange) => {
                    let number = self.distinct.exchanges.add(self.program, exchange);
                    if let Some(phase) = self.exchange[number] {
                        let spends = smallvec![
                            (Activity::Sync, self.launch() + phase.route),
                            (Activity::Exchange, phase.busy)
                        ];
                        out.push(Timed::Leaf(local(exchange.source, exchange.ipu, spends)));
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
                    groups: Vec::new(),
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
        let key: Vec<_> = pairs
            .iter()
            .map(|(&(a, b), &bytes)| (a, b, bytes))
            .collect();
        let (placement, topology, machine) = (&self.placement, &self.topology, self.machine);
        let cycles = *self.copies.entry(key).or_insert_with_key(|key| {
            // All replicas copy at the same time.
            let flows: Vec<Flow> = placement
                .replicas()
                .flat_map(|replica| {
                    key.iter().map(move |&(from, to, bytes)| Flow {
                        from: placement.ipu(replica, from),
                        to: placement.ipu(replica, to),
                        bytes,
                    })
                })
                .collect();
            let n_synced = u32::try_from(ipus.len()).expect("IPUs have 32-bit numbers");
            inter_ipu_copy(&flows, n_synced, topology, machine)
        });
        Some(Timed::Leaf(Leaf {
            source,
            ipus,
            occupies: None,
            asks: Cycles::ZERO,
            spends: smallvec![(Activity::IpuCopy, cycles)],
            flops: Flops::ZERO,
            moves: smallvec![(Channel::IpuLink, pairs.values().copied().sum())],
            streams: SmallVec::new(),
        }))
    }

    /// One step for what comes from the host, one for what goes there, one for streaming memory.
    fn transfers(&self, source: SourceId, transfers: &[Transfer]) -> Vec<Timed> {
        let mut phases: BTreeMap<u32, Phase> = BTreeMap::new();
        for transfer in transfers {
            let bytes = self.program.bytes_of(transfer.var());
            let (line, channel, stream) = match *transfer {
                Transfer::HostRead { stream, .. } => {
                    (LineKind::FromHost, Channel::HostRead, Some(stream))
                }
                Transfer::HostWrite { stream, .. } => {
                    (LineKind::ToHost, Channel::HostWrite, Some(stream))
                }
                Transfer::RemoteLoad { .. } => {
                    (LineKind::StreamingMemory, Channel::RemoteLoad, None)
                }
                Transfer::RemoteStore { .. } => {
                    (LineKind::StreamingMemory, Channel::RemoteStore, None)
                }
            };
            let phase = phases.entry(line as u32).or_insert_with(|| Phase {
                kind: line,
                ipu: self.program.vars[transfer.var()].ipu,
                bytes: Bytes::ZERO,
                moves: SmallVec::new(),
                streams: SmallVec::new(),
            });
            phase.bytes += bytes;
            phase.moves.push((channel, bytes));
            phase.streams.extend(stream);
        }
        phases
            .into_values()
            .map(|phase| self.transfer_phase(source, phase))
            .collect()
    }

    fn transfer_phase(&self, source: SourceId, phase: Phase) -> Timed {
        let place = self.placement.ipu(ReplicaId(0), phase.ipu);
        let ipu_machine = self.topology.ipu_machine(place).0;
        let cost = |bytes| {
            let transfer = SharedTransfer {
                bytes_per_ipu: bytes,
                n_ipus: self.sharers(),
            };
            match phase.kind {
                LineKind::FromHost | LineKind::ToHost => host_stream(transfer, self.machine),
                LineKind::StreamingMemory => remote_transfer(transfer, self.machine),
            }
        };
        let latency = cost(Bytes::ZERO);
        let whole = cost(phase.bytes);
        // Without prefetch the host is asked first, and only then makes its data ready.
        let mut streams = phase.streams.iter();
        let late = streams.any(|&stream| !self.program.streams[stream].prefetch);
        let ask = match phase.kind {
            LineKind::FromHost if late => latency,
            LineKind::FromHost | LineKind::ToHost | LineKind::StreamingMemory => Cycles::ZERO,
        };
        // Requests travel before data comes; what leaves needs no request.
        let comes = |(channel, _): &(Channel, Bytes)| {
            matches!(channel, Channel::HostRead | Channel::RemoteLoad)
        };
        let lead = if phase.moves.iter().any(comes) {
            ask + latency
        } else {
            Cycles::ZERO
        };
        let (activity, start, ipus) = match phase.kind {
            LineKind::FromHost | LineKind::ToHost => {
                (Activity::Host, Cycles::ZERO, smallvec![phase.ipu])
            }
            LineKind::StreamingMemory => (
                Activity::StreamingMemory,
                self.machine.sync.global + self.start_external(),
                self.replica_from(phase.ipu),
            ),
        };
        Timed::Leaf(Leaf {
            source,
            ipus,
            occupies: Some(Occupied {
                line: Line(ipu_machine * LINES_PER_MACHINE + phase.kind as u32),
                lead: start + lead,
                cycles: whole - latency,
            }),
            asks: ask,
            spends: smallvec![(activity, start + whole)],
            flops: Flops::ZERO,
            moves: phase.moves,
            streams: phase.streams,
        })
    }

    /// All IPUs of a replica, `first` in front: what reaches beyond them concerns them all.
    fn replica_from(&self, first: IpuId) -> SmallVec<[IpuId; 2]> {
        let all = (0..self.program.n_ipus).map(IpuId);
        std::iter::once(first)
            .chain(all.filter(|&ipu| ipu != first))
            .collect()
    }

    /// Getting all IPUs of a replica to a transfer.
    fn start_external(&self) -> Cycles {
        self.machine.tile.clock.cycles(self.machine.sync.external)
    }

    /// IPUs of different replicas, but of one IPU-Machine, that transfer at the same time.
    fn sharers(&self) -> u32 {
        let per_machine = self.machine.ipus_per_machine / self.program.n_ipus;
        per_machine.clamp(1, self.program.n_replicas)
    }

    /// Lines of the IPU-Machines that the first replica lies on.
    fn n_lines(&self) -> u32 {
        let last = IpuId(self.program.n_ipus - 1);
        (self.topology.ipu_machine(last).0 + 1) * LINES_PER_MACHINE
    }

    /// The IPUs that hold something work side by side, each with the same IPU of the other
    /// replicas; the other IPUs of the replica take part in the sync.
    fn collective(&self, collective: &Collective) -> Vec<Timed> {
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
        let (Some(&first), Some(&largest)) = (ipus.keys().next(), ipus.values().max()) else {
            return Vec::new();
        };
        let clock = self.machine.tile.clock;
        let (cycles, ways) = match collective.kind {
            CollectiveKind::AllReduce => (rings::all_reduce(largest, &self.rings, clock), 2),
            CollectiveKind::ReduceScatter => {
                (rings::reduce_scatter(largest, &self.rings, clock), 1)
            }
            CollectiveKind::AllGather => (rings::all_gather(largest, &self.rings, clock), 1),
            CollectiveKind::TakeShard => {
                let shards = ipus.keys().map(|&ipu| self.take_shard(collective, ipu));
                return shards.collect();
            }
        };
        let moved = self.sent(ipus.values().copied().sum());
        vec![Timed::Leaf(Leaf {
            source: collective.source,
            ipus: self.replica_from(first),
            occupies: None,
            asks: Cycles::ZERO,
            spends: smallvec![(Activity::Collective, self.start_external() + cycles)],
            flops: Flops::ZERO,
            moves: smallvec![(Channel::Collective, moved * ways)],
            streams: SmallVec::new(),
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
            (Activity::Sync, self.machine.compute.dispatch),
            (Activity::Compute, memory::copy(most, &self.machine.tile))
        ];
        Timed::Leaf(local(collective.source, ipu, spends))
    }

    /// What a replica sends of `bytes` when every other one gets its share.
    fn sent(&self, bytes: Bytes) -> Bytes {
        let n = u64::from(self.program.n_replicas);
        bytes.share(n) * (n - 1)
    }
}

/// Transfers of one step over one line.
struct Phase {
    kind: LineKind,
    ipu: IpuId,
    bytes: Bytes,
    moves: SmallVec<[(Channel, Bytes); 1]>,
    streams: SmallVec<[StreamId; 1]>,
}

fn local(source: SourceId, ipu: IpuId, spends: SmallVec<[(Activity, Cycles); 2]>) -> Leaf {
    Leaf {
        source,
        ipus: smallvec![ipu],
        occupies: None,
        asks: Cycles::ZERO,
        spends,
        flops: Flops::ZERO,
        moves: SmallVec::new(),
        streams: SmallVec::new(),
    }
}
