//! Which constants does a machine have, and what is known of each?
//!
//! One row a constant: the field that holds it and its name as a [`ConstantId`], then its type
//! (which gives unit and form), its key in a description, the bounds of its value, and what it is
//! the price of. Reading, writing, changing and every list of constants follow from these rows.
//! The order of the rows is that of a description that is written out.
//!
//! Reading builds the structs of a machine field by field, so a field without a row doesn't
//! compile, nor does a row of another type than its field or without an expense.
//!
//! Left out: values and sources, which stand in `configs/systems/`, and how constants must agree
//! with each other, which is in `resolve`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Result;
use super::field::{Field, Raw};
use super::reader::Reader;
use super::row::{ConstantEntry, Expense, Limits};
use super::{
    AmpSpec, ComputeSpec, ExchangeSpec, GatewaySpec, HostSpec, LinkSpec, MachineSpec, MemorySpec,
    StreamingMemorySpec, SyncSpec, TileSpec, Wiring,
};
use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Cycles, Hertz, SimSeconds};

/// Anything of its form, zero included.
const ANY: Limits = Limits::ANY;
/// More than zero.
const POSITIVE: Limits = Limits::POSITIVE;
/// Columns or rows of a grid of tiles.
const GRID: Limits = POSITIVE.at_most(
    1024,
    "far beyond any grid, and few enough for a table of routes",
);
/// Tiles of an IPU. Time and memory of a run grow with them: of 65,536 a small run took 36 s and
/// 2.4 GiB.
const TILES: Limits = POSITIVE.at_most(
    8192,
    "tiles, over five times those of any IPU, and few enough for a run to take seconds",
);
/// AMP units of a tile.
const AMP_UNITS: Limits = POSITIVE.at_most(64, "AMP units, far beyond any");
/// Bytes of a load.
const DATA_PATH: Limits = POSITIVE
    .multiple_of(4, "bytes of an f32")
    .at_most(1024, "B that a tile may load in a cycle, far beyond any");

/// Memory for one codelet, vertex, edge, phase, message or step.
const PIECE: Limits = ANY.at_most(
    1 << 20,
    "B of each, more than tiles have, and few enough to add up those of a program",
);

/// Turns the table below into [`ConstantId`] with its rows, and into the functions that read the
/// fields of a machine and list them.
///
/// A block is a struct of a machine: fields with a row each, `field [row]`, and, each after a
/// `=>`, fields that are blocks themselves. An `optional` block may be absent as a whole.
macro_rules! constants {
    ($Machine:ident { $($table:tt)* }) => {
        constants!(@rows [] ($Machine $($table)*));

        /// Reads every field from its constant, in the order of the table.
        pub(super) fn read(name: String, summary: String, reader: &mut Reader) -> Result<$Machine> {
            let provenance = BTreeMap::new();
            Ok(constants!(@read reader $Machine [name, summary, provenance,] $($table)*))
        }

        /// What every field holds, in the order of the table; nothing of blocks that are absent.
        pub(super) fn fields(machine: &$Machine) -> Vec<(ConstantId, Raw)> {
            let mut fields = Vec::with_capacity(ROWS.len());
            constants!(@list fields machine $($table)*);
            fields
        }
    };

    // The rows of all blocks in order, each with block and field: the block that is being walked
    // stands first, then those it is a part of.
    (@rows [$($done:tt)*]
        ($Block:ident $($field:ident [$($row:tt)*])* => optional $($rest:tt)*) $($outer:tt)*) => {
        constants!(@rows [$($done)*] ($Block $($field [$($row)*])* => $($rest)*) $($outer)*);
    };
    (@rows [$($done:tt)*]
        ($Block:ident $($field:ident [$($row:tt)*])*
            => $part:ident: $Part:ident { $($inner:tt)* } $($rest:tt)*)
        $($outer:tt)*) => {
        constants!(@rows [$($done)* $([$Block $field $($row)*])*]
            ($Part $($inner)*) ($Block $($rest)*) $($outer)*);
    };
    (@rows [$($done:tt)*] ($Block:ident $($field:ident [$($row:tt)*])*) $($outer:tt)*) => {
        constants!(@rows [$($done)* $([$Block $field $($row)*])*] $($outer)*);
    };
    (@rows [$([
        $Block:ident $field:ident
        $id:ident: $Type:ty, $key:literal, $limits:ident, $expense:ident
    ])*]) => {
        /// One constant of a machine; [`constant`](super::constant) has what is known of it.
        ///
        /// As text it is the key, and ordered as the keys are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum ConstantId {
            $(
                #[doc = concat!(
                    "`", $key, "`: [`", stringify!($Block), "::", stringify!($field), "`]."
                )]
                $id,
            )*
        }

        impl ConstantId {
            /// Every constant, in the order of a description that is written out.
            pub const ALL: &[Self] = &[$(Self::$id),*];
        }

        /// The row of every constant, by its number.
        pub(super) static ROWS: &[ConstantEntry] = &[$(
            ConstantEntry {
                key: $key,
                form: <$Type as Field>::FORM,
                limits: $limits,
                expense: Expense::$expense,
            }
        ),*];
    };

    // A struct of fields that are read in order.
    (@read $reader:ident $Block:ident [$($done:tt)*]
        $($field:ident [$id:ident: $Type:ty, $($row:tt)*])*
        => optional $part:ident: $Part:ident {
            $first:ident [$first_id:ident: $($first_row:tt)*] $($inner:tt)*
        } $($rest:tt)*) => {
        constants!(@read $reader $Block [
            $($done)*
            $($field: $reader.take::<$Type>(ConstantId::$id)?,)*
            $part: if $reader.has_section(ConstantId::$first_id.section()) {
                Some(constants!(@read $reader $Part []
                    $first [$first_id: $($first_row)*] $($inner)*))
            } else {
                None
            },
        ] $($rest)*)
    };
    (@read $reader:ident $Block:ident [$($done:tt)*]
        $($field:ident [$id:ident: $Type:ty, $($row:tt)*])*
        => $part:ident: $Part:ident { $($inner:tt)* } $($rest:tt)*) => {
        constants!(@read $reader $Block [
            $($done)*
            $($field: $reader.take::<$Type>(ConstantId::$id)?,)*
            $part: constants!(@read $reader $Part [] $($inner)*),
        ] $($rest)*)
    };
    (@read $reader:ident $Block:ident [$($done:tt)*]
        $($field:ident [$id:ident: $Type:ty, $($row:tt)*])*) => {
        $Block {
            $($done)*
            $($field: $reader.take::<$Type>(ConstantId::$id)?,)*
        }
    };

    // A push for each field of a block.
    (@list $out:ident $block:ident
        $($field:ident [$id:ident: $($row:tt)*])*
        => optional $part:ident: $Part:ident { $($inner:tt)* } $($rest:tt)*) => {
        $($out.push((ConstantId::$id, $block.$field.raw()));)*
        if let Some(part) = &$block.$part {
            constants!(@list $out part $($inner)*);
        }
        constants!(@list $out $block $($rest)*);
    };
    (@list $out:ident $block:ident
        $($field:ident [$id:ident: $($row:tt)*])*
        => $part:ident: $Part:ident { $($inner:tt)* } $($rest:tt)*) => {
        $($out.push((ConstantId::$id, $block.$field.raw()));)*
        let part = &$block.$part;
        constants!(@list $out part $($inner)*);
        constants!(@list $out $block $($rest)*);
    };
    (@list $out:ident $block:ident $($field:ident [$id:ident: $($row:tt)*])*) => {
        $($out.push((ConstantId::$id, $block.$field.raw()));)*
    };
}

constants! {
    MachineSpec {
        n_ipus [SystemIpus: u32, "system.ipus", POSITIVE, Routes]
        ipus_per_machine [SystemIpusPerMachine: u32, "system.ipus_per_machine", POSITIVE, Routes]
        ipus_per_rack [SystemIpusPerRack: u32, "system.ipus_per_rack", POSITIVE, Routes]
        wiring [SystemWiring: Wiring, "system.wiring", ANY, Routes]
        => tile: TileSpec {
            clock [ChipClock: Hertz, "chip.clock", POSITIVE, Cycles]
            tiles_per_ipu [ChipTiles: u32, "chip.tiles", TILES, Plans]
            memory [ChipMemory: Bytes, "chip.memory", POSITIVE, Plans]
            memory_element [ChipMemoryElement: Bytes, "chip.memory_element", POSITIVE, Plans]
            workers [ChipWorkers: u32, "chip.workers", POSITIVE, Vertices]
            data_path [ChipDataPath: Bytes, "chip.data_path", DATA_PATH, Vertices]
            => amp: AmpSpec {
                units_f16_f16 [ChipAmpUnitsF16F16: u32, "chip.amp_units_f16_f16", AMP_UNITS, Vertices]
                units_f16_f32 [ChipAmpUnitsF16F32: u32, "chip.amp_units_f16_f32", AMP_UNITS, Vertices]
                units_f32_f32 [ChipAmpUnitsF32F32: u32, "chip.amp_units_f32_f32", AMP_UNITS, Vertices]
                chain_depth [ChipAmpChainDepth: u32, "chip.amp_chain_depth", POSITIVE, Vertices]
                coefficient_rate [ChipAmpCoefficientRate: BytesPerCycle,
                    "chip.amp_coefficient_rate", POSITIVE, Vertices]
                coefficient_rate_interleaved [ChipAmpCoefficientRateInterleaved: BytesPerCycle,
                    "chip.amp_coefficient_rate_interleaved", POSITIVE, Nothing]
            }
            exchange_rate [ChipExchangeRate: BytesPerCycle, "chip.exchange_rate", POSITIVE, Exchanges]
            tiles_per_exchange_bus [ChipTilesPerExchangeBus: u32,
                "chip.tiles_per_exchange_bus", POSITIVE, Exchanges]
            assemble_64_bytes [ChipAssemble64Bytes: Cycles, "chip.assemble_64_bytes", ANY, Assembly]
        }
        => compute: ComputeSpec {
            dispatch [ComputeDispatch: Cycles, "compute.dispatch", ANY, ComputeSets]
            trust_ratio [ComputeTrustRatio: Cycles, "compute.trust_ratio", ANY, TrustRatios]
        }
        => exchange: ExchangeSpec {
            columns [ExchangeColumns: u32, "exchange.columns", GRID, Exchanges]
            rows [ExchangeRows: u32, "exchange.rows", GRID, Exchanges]
            tiles_per_block [ExchangeTilesPerBlock: u32, "exchange.tiles_per_block", POSITIVE, Exchanges]
            sync_max [ExchangeSyncMax: Cycles, "exchange.sync_max", ANY, ExchangePhases]
            phase_extra [ExchangePhaseExtra: Cycles, "exchange.phase_extra", ANY, ExchangePhases]
            route_base [ExchangeRouteBase: Cycles, "exchange.route_base", ANY, Exchanges]
            route_per_row [ExchangeRoutePerRow: Cycles, "exchange.route_per_row", ANY, Exchanges]
            route_per_column [ExchangeRoutePerColumn: Cycles, "exchange.route_per_column", ANY, Exchanges]
            control_words_per_fragment [ExchangeControlWordsPerFragment: u32,
                "exchange.control_words_per_fragment", POSITIVE, Exchanges]
            words_per_transfer_max [ExchangeWordsPerTransferMax: u32,
                "exchange.words_per_transfer_max", POSITIVE, Exchanges]
        }
        => sync: SyncSpec {
            global [SyncGlobal: Cycles, "sync.global", ANY, Syncs]
            hop [SyncHop: SimSeconds, "sync.hop", ANY, Syncs]
        }
        => links: LinkSpec {
            links_per_ipu [LinksLinksPerIpu: u32, "links.links_per_ipu", POSITIVE, Nothing]
            lanes_per_link [LinksLanesPerLink: u32, "links.lanes_per_link", POSITIVE, Nothing]
            links_per_rung [LinksLinksPerRung: u32, "links.links_per_rung", POSITIVE, Routes]
            links_per_rail [LinksLinksPerRail: u32, "links.links_per_rail", POSITIVE, Routes]
            links_per_flow [LinksLinksPerFlow: u32, "links.links_per_flow", POSITIVE, Routes]
            raw [LinksRaw: BytesPerSecond, "links.raw", POSITIVE, Nothing]
            usable [LinksUsable: BytesPerSecond, "links.usable", POSITIVE, LinkBytes]
            latency [LinksLatency: SimSeconds, "links.latency", ANY, FirstLinks]
            hop [LinksHop: SimSeconds, "links.hop", ANY, FurtherLinks]
        }
        => optional gateway: GatewaySpec {
            ports_per_machine [GatewayPortsPerMachine: u32,
                "gateway.ports_per_machine", POSITIVE, GatewayBytes]
            port [GatewayPort: BytesPerSecond, "gateway.port", POSITIVE, GatewayBytes]
            latency [GatewayLatency: SimSeconds, "gateway.latency", ANY, GatewayCrossings]
        }
        => host: HostSpec {
            n_hosts [HostHosts: u32, "host.hosts", POSITIVE, HostBytes]
            ipu_bandwidth [HostIpuBandwidth: BytesPerSecond, "host.ipu_bandwidth", POSITIVE, HostBytes]
            machine_bandwidth [HostMachineBandwidth: BytesPerSecond,
                "host.machine_bandwidth", POSITIVE, HostBytes]
            server_bandwidth [HostServerBandwidth: BytesPerSecond,
                "host.server_bandwidth", POSITIVE, HostBytes]
            latency [HostLatency: SimSeconds, "host.latency", ANY, HostTransfers]
            run [HostRun: SimSeconds, "host.run", ANY, HostRuns]
        }
        => streaming_memory: StreamingMemorySpec {
            capacity [StreamingMemoryCapacity: Bytes, "streaming_memory.capacity", POSITIVE, Memory]
            bandwidth [StreamingMemoryBandwidth: BytesPerSecond,
                "streaming_memory.bandwidth", POSITIVE, StreamingBytes]
            latency [StreamingMemoryLatency: SimSeconds,
                "streaming_memory.latency", ANY, StreamingAccesses]
        }
        => memory: MemorySpec {
            executable [MemoryExecutable: Bytes, "memory.executable", POSITIVE, Memory]
            interleaved [MemoryInterleaved: Bytes, "memory.interleaved", ANY, Memory]
            loader [MemoryLoader: Bytes, "memory.loader", ANY, Memory]
            stack_worker [MemoryStackWorker: Bytes, "memory.stack_worker", ANY, Memory]
            stack_supervisor [MemoryStackSupervisor: Bytes, "memory.stack_supervisor", ANY, Memory]
            vertex_state_base [MemoryVertexStateBase: Bytes, "memory.vertex_state_base", PIECE, Memory]
            vertex_state_per_edge [MemoryVertexStatePerEdge: Bytes,
                "memory.vertex_state_per_edge", PIECE, Memory]
            vertex_code_per_type [MemoryVertexCodePerType: Bytes,
                "memory.vertex_code_per_type", PIECE, Memory]
            exchange_code_per_phase [MemoryExchangeCodePerPhase: Bytes,
                "memory.exchange_code_per_phase", PIECE, Memory]
            exchange_code_per_fragment [MemoryExchangeCodePerFragment: Bytes,
                "memory.exchange_code_per_fragment", PIECE, Memory]
            control_code_per_step [MemoryControlCodePerStep: Bytes,
                "memory.control_code_per_step", PIECE, Memory]
        }
    }
}
