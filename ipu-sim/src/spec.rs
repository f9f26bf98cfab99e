//! One machine's numbers.
//!
//! A machine is described by a TOML text ([`MachineSpec::from_toml`]): sections of constants, each
//! with its value and unit, how it is known, who says so and, where the sources leave room, the
//! range that they leave. A description may build on shipped ones and say only what differs:
//!
//! ```
//! use ipu_sim::spec::MachineSpec;
//! use ipu_sim::units::Hertz;
//!
//! let machine = MachineSpec::from_toml(
//!     r#"
//!     name = "overclocked"
//!     base = ["mk2-pod16"]
//!     [chip]
//!     clock = { value = "1.5 GHz", kind = "assumed", source = "what if" }
//!     "#,
//! )?;
//! assert_eq!(machine.tile.clock, Hertz(1.5e9));
//! assert_eq!(machine.n_ipus, 16);
//! # Ok::<(), ipu_sim::spec::error::SpecError>(())
//! ```
//!
//! Bases are applied in the order given, then the file's own constants; what comes later wins.
//! The shipped files lie in `configs/systems/` and are compiled in ([`shipped`]). Everything is
//! checked when a description is read; a `MachineSpec` needs no further checks.
//!
//! A program that asks "what if" changes a constant as a description would, and with its checks:
//!
//! ```
//! use ipu_sim::spec::MachineSpec;
//!
//! let pod = MachineSpec::shipped("mk2-pod16")?;
//! let fast = pod.with("links.usable", "15.9 GB/s")?;
//! assert_eq!(fast.links.usable.0, 15.9e9);
//! let refused = pod.with("links.usable", "26.5 GB/s").unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "`links.usable`: expected at most 16000000000 (the raw rate in B/s), got 26500000000"
//! );
//! # Ok::<(), ipu_sim::spec::error::SpecError>(())
//! ```
//!
//! Left out: power, temperature, clock throttling, link errors, and anything that a tile
//! instruction costs (that is in [`crate::cost`]).

mod change;
pub mod constant;
mod description;
pub mod error;
mod field;
pub mod quantity;
mod reader;
mod resolve;
mod row;
pub mod shipped;
pub(crate) mod suggest;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Cycles, Hertz, SimSeconds};
use constant::{Constant, ConstantId, Kind, Provenance};
use description::Description;
use error::{Result, SpecError};
use field::Raw;
use quantity::{Quantity, Value};

/// Everything the simulator knows of one machine; [`Self::constants`] has the sources.
///
/// Every field but name and summary is a constant of the machine, or a struct of such.
/// [`Self::with`] gives one another value, checked as a description is. A field that is set
/// directly isn't checked; reports have its value, as assumed by a program.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineSpec {
    /// Name, such as `mk2-pod16`.
    pub name: String,
    /// One line on what it is; empty if the description has none.
    pub summary: String,
    /// IPUs of the whole machine.
    pub n_ipus: u32,
    /// IPUs that share a host port, a gateway and streaming memory: 4 in an IPU-M2000.
    pub ipus_per_machine: u32,
    /// IPUs joined by IPU-Links; between such racks only gateways connect.
    pub ipus_per_rack: u32,
    /// How the IPU-Links of one rack are wired.
    pub wiring: Wiring,
    /// One tile, its exchange port, and how many there are.
    pub tile: TileSpec,
    /// Starting vertices.
    pub compute: ComputeSpec,
    /// The exchange inside one IPU.
    pub exchange: ExchangeSpec,
    /// Synchronisation between IPUs.
    pub sync: SyncSpec,
    /// Links between IPUs of a rack.
    pub links: LinkSpec,
    /// Links between racks, if the machine can have any.
    pub gateway: Option<GatewaySpec>,
    /// Links to the host.
    pub host: HostSpec,
    /// Memory beside the IPUs, which a program reads and writes explicitly.
    pub streaming_memory: StreamingMemorySpec,
    /// How tile memory is laid out, and what programs occupy beside their tensors.
    pub memory: MemorySpec,
    /// How the values of all these are known.
    provenance: BTreeMap<ConstantId, Provenance>,
}

/// How IPU-Links join the pairs of a rack: a pair is a rung, and rails run along each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// The rails end at the first and the last rung.
    Ladder,
    /// The rails of the last rung lead back to the first.
    Torus,
}

/// Starting a compute set.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeSpec {
    /// Control cycles of one compute set, beside what its vertices cost.
    pub dispatch: Cycles,
    /// Cycles of an IPU for one trust ratio of LAMB, beside what its norms, their sums over
    /// replicas and the new weights cost.
    pub trust_ratio: Cycles,
}

/// The exchange inside one IPU; its rate is [`TileSpec::exchange_rate`].
///
/// Tiles lie in `columns x rows` blocks of `tiles_per_block`; tiles of a block share a place.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeSpec {
    /// Columns of blocks.
    pub columns: u32,
    /// Rows of blocks.
    pub rows: u32,
    /// Tiles of one block.
    pub tiles_per_block: u32,
    /// Longest internal sync of all tiles.
    pub sync_max: Cycles,
    /// Cycles of one exchange phase beyond sync, route and data.
    pub phase_extra: Cycles,
    /// Cycles from a send to the first word stored, less what distance adds.
    pub route_base: Cycles,
    /// Cycles that each row of the sender adds.
    pub route_per_row: Cycles,
    /// Cycles that each column up to the spine adds.
    pub route_per_column: Cycles,
    /// Control instructions of a receiver for each tile that it turns to.
    pub control_words_per_fragment: u32,
    /// Longest transfer of one description, in 32-bit words; a longer one takes several.
    pub words_per_transfer_max: u32,
}

/// Synchronisation between IPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncSpec {
    /// A sync of neighbouring IPUs.
    pub global: Cycles,
    /// Time that each further hop adds, there and again back.
    pub hop: SimSeconds,
}

/// IPU-Links. Rates are per link and direction; links work in both directions at once.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// Links that leave one IPU.
    pub links_per_ipu: u32,
    /// Lanes of a link.
    pub lanes_per_link: u32,
    /// Links between the two IPUs of a rung.
    pub links_per_rung: u32,
    /// Links between an IPU and the next one on its rail.
    pub links_per_rail: u32,
    /// Links that one source sends over to one destination.
    pub links_per_flow: u32,
    /// Signalling rate of a link.
    pub raw: BytesPerSecond,
    /// Payload rate of a link.
    pub usable: BytesPerSecond,
    /// Time from tile to tile over one link.
    pub latency: SimSeconds,
    /// Time that every further link of a route adds.
    pub hop: SimSeconds,
}

/// Gateways, one for each IPU-Machine, and the links between those of different racks.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySpec {
    /// Ports to other racks.
    pub ports_per_machine: u32,
    /// Rate of a port, each direction.
    pub port: BytesPerSecond,
    /// Time to cross one gateway link.
    pub latency: SimSeconds,
}

/// Links between IPUs and their hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    /// Host servers.
    pub n_hosts: u32,
    /// Rate between one IPU and its gateway, or the slot of its card, each direction: PCIe.
    pub ipu_bandwidth: BytesPerSecond,
    /// Rate between the host and one IPU-Machine, each direction, shared by its IPUs.
    pub machine_bandwidth: BytesPerSecond,
    /// Rate of one host server, each direction, shared by its IPU-Machines.
    pub server_bandwidth: BytesPerSecond,
    /// Time of a transfer of no bytes.
    pub latency: SimSeconds,
    /// Time that starting a run of a program takes.
    pub run: SimSeconds,
}

/// Streaming memory of one IPU-Machine.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamingMemorySpec {
    /// Size.
    pub capacity: Bytes,
    /// Rate of reads and writes together, shared by the IPUs of the IPU-Machine.
    pub bandwidth: BytesPerSecond,
    /// Time of a transfer of no bytes.
    pub latency: SimSeconds,
}

/// Layout of a tile's memory, and estimates of what a program occupies there.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySpec {
    /// Region that can hold code, the only one; its elements aren't interleaved.
    pub executable: Bytes,
    /// Region of interleaved elements, the only one that feeds 128-bit loads.
    pub interleaved: Bytes,
    /// Memory that the loader occupies, at the end of the interleaved region.
    pub loader: Bytes,
    /// Stack of one worker.
    pub stack_worker: Bytes,
    /// Stack of the supervisor.
    pub stack_supervisor: Bytes,
    /// State of a vertex without edges.
    pub vertex_state_base: Bytes,
    /// State that each edge of a vertex adds.
    pub vertex_state_per_edge: Bytes,
    /// Code of one type of vertex, once on each tile that has such a vertex.
    pub vertex_code_per_type: Bytes,
    /// Exchange code of a tile that takes part in an exchange.
    pub exchange_code_per_phase: Bytes,
    /// Exchange code of each fragment sent or received there.
    pub exchange_code_per_fragment: Bytes,
    /// Control code of each step of the program.
    pub control_code_per_step: Bytes,
}

impl MachineSpec {
    /// Reads a description, with the shipped bases it names.
    ///
    /// # Errors
    ///
    /// [`SpecError::Description`] with line and column for a text that isn't a description, an
    /// unknown constant or base, a missing or wrong unit, or values that no machine can have;
    /// [`SpecError::Incomplete`] where a constant is given nowhere.
    pub fn from_toml(text: &str) -> Result<Self> {
        resolve::resolve(Description::read(text)?)
    }

    /// The shipped machine of this name.
    ///
    /// # Errors
    ///
    /// [`SpecError::UnknownMachine`] if there is none.
    pub fn shipped(name: &str) -> Result<Self> {
        let text = shipped::description(name).ok_or_else(|| SpecError::UnknownMachine {
            name: name.to_owned(),
            shipped: shipped::machines(),
        })?;
        Self::from_toml(text)
    }

    /// Description of this machine without bases, which reads back as an equal machine.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "name = {}\nsummary = {}\n",
            constant::quoted(&self.name),
            constant::quoted(&self.summary)
        );
        let mut section = "";
        for constant in self.constants() {
            if constant.id.section() != section {
                section = constant.id.section();
                write!(text, "\n[{section}]\n").expect("a string accepts any text");
            }
            text.push_str(&constant.to_toml());
            text.push('\n');
        }
        text
    }

    /// Every constant with value, kind and source, in the order of a description.
    pub fn constants(&self) -> impl Iterator<Item = Constant<'_>> {
        let fields = table::fields(self).into_iter();
        fields.map(|(id, raw)| self.constant_of(id, raw))
    }

    /// One constant with value, kind and source; none if the machine doesn't have it.
    #[must_use]
    pub fn constant(&self, id: ConstantId) -> Option<Constant<'_>> {
        self.constants().find(|constant| constant.id == id)
    }

    fn constant_of(&self, id: ConstantId, raw: Raw) -> Constant<'_> {
        let written = self.provenance.get(&id);
        let value = match raw {
            Raw::Word(word) => Value::Word(word),
            Raw::Number(magnitude) => Value::Quantity(Quantity {
                magnitude,
                unit: written.map_or(id.base_unit(), |written| written.unit),
            }),
        };
        match written.filter(|written| written.of == raw) {
            Some(Provenance {
                kind,
                source,
                range,
                ..
            }) => Constant {
                id,
                value,
                kind: *kind,
                source,
                range: *range,
            },
            // Set in the field, by a program.
            None => Constant {
                id,
                value,
                kind: Kind::Assumed,
                source: "given by a program",
                range: None,
            },
        }
    }

    /// Racks joined by gateways; 1 if all IPUs are joined by IPU-Links.
    #[must_use]
    pub fn n_racks(&self) -> u32 {
        self.n_ipus.div_ceil(self.ipus_per_rack)
    }

    /// IPU-Machines, or cards.
    #[must_use]
    pub fn n_machines(&self) -> u32 {
        self.n_ipus.div_ceil(self.ipus_per_machine)
    }

    /// All tiles.
    #[must_use]
    pub fn n_tiles(&self) -> u64 {
        u64::from(self.n_ipus) * u64::from(self.tile.tiles_per_ipu)
    }
}

impl Wiring {
    /// The word for it in a description.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ladder => "ladder",
            Self::Torus => "torus",
        }
    }
}

impl MemorySpec {
    /// Stacks of a tile with `workers` workers and a supervisor.
    #[must_use]
    pub fn stacks(&self, workers: u32) -> Bytes {
        self.stack_worker * u64::from(workers) + self.stack_supervisor
    }
}

/// The numbers of one tile and of the exchange next to it, resolved from a machine description.
#[derive(Clone, Debug, PartialEq)]
pub struct TileSpec {
    /// Tile clock.
    pub clock: Hertz,
    /// Tiles in use on one IPU.
    pub tiles_per_ipu: u32,
    /// SRAM of one tile.
    pub memory: Bytes,
    /// One memory element (bank) of that SRAM.
    pub memory_element: Bytes,
    /// Worker contexts that share the tile's issue slots.
    pub workers: u32,
    /// Width of one load or store.
    pub data_path: Bytes,
    /// Matrix unit.
    pub amp: AmpSpec,
    /// Rate at which a tile receives (and sends) on the exchange.
    pub exchange_rate: BytesPerCycle,
    /// Tiles that share an exchange bus and may receive one stream at double rate.
    pub tiles_per_exchange_bus: u32,
    /// Time to put 64 bytes that arrived in a rearrangement in their place.
    pub assemble_64_bytes: Cycles,
}

/// The matrix (AMP) unit of a tile.
#[derive(Clone, Debug, PartialEq)]
pub struct AmpSpec {
    /// Units with f16 operands and f16 partials.
    pub units_f16_f16: u32,
    /// Units with f16 operands and f32 partials.
    pub units_f16_f32: u32,
    /// Units with f32 operands and f32 partials.
    pub units_f32_f32: u32,
    /// Products chained in one unit.
    pub chain_depth: u32,
    /// Rate at which the supervisor loads coefficients from anywhere.
    pub coefficient_rate: BytesPerCycle,
    /// Rate at which it can load them from interleaved memory.
    pub coefficient_rate_interleaved: BytesPerCycle,
}

impl TileSpec {
    /// Elements of `element` bytes in one load: 4 of f16, 2 of f32 on a 64-bit path.
    #[must_use]
    pub fn vector_width(&self, element: Bytes) -> u64 {
        self.data_path.0 / element.0
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod fixtures {
    //! Machine numbers for the tests of this crate.

    use super::*;

    /// An IPU-POD16 cut down to 4 IPUs of 32 tiles.
    pub(crate) fn small() -> MachineSpec {
        machine("mk2-pod16").scaled_down(4, 32).unwrap()
    }

    /// The smallest and the largest value that a constant may have, as they are written, and zero
    /// where it may be that; all words of a choice.
    pub(crate) fn ends(id: ConstantId) -> Vec<String> {
        let row = id.row();
        let dimension = match row.form {
            field::Form::Word(words) => return words.iter().map(|&word| word.into()).collect(),
            field::Form::Quantity(dimension) => dimension,
        };
        let limits = row.limits;
        let unit = dimension.base();
        let multiple = limits.multiple_of.map_or(0.0, |(of, _)| of as f64);
        // Seconds have no smallest value.
        let least = match dimension.least().0.max(multiple) {
            0.0 => 1e-12,
            least => least,
        };
        let most = limits.most.map_or(f64::MAX, |(most, _)| most as f64);
        let most = most.min(dimension.most().0);
        let zero = limits.zero.then_some(0.0);
        let numbers = zero.into_iter().chain([least, most]);
        let written = numbers.map(|magnitude| Quantity { magnitude, unit }.to_string());
        written.collect()
    }

    /// A shipped machine.
    pub(crate) fn machine(name: &str) -> MachineSpec {
        MachineSpec::shipped(name).unwrap()
    }

    /// A GC200 tile.
    pub(crate) fn gc200() -> TileSpec {
        TileSpec {
            clock: Hertz(1.325e9),
            tiles_per_ipu: 1472,
            memory: Bytes(638_976),
            memory_element: Bytes(16_384),
            workers: 6,
            data_path: Bytes(8),
            amp: AmpSpec {
                units_f16_f16: 16,
                units_f16_f32: 8,
                units_f32_f32: 16,
                chain_depth: 4,
                coefficient_rate: BytesPerCycle(8),
                coefficient_rate_interleaved: BytesPerCycle(16),
            },
            exchange_rate: BytesPerCycle(4),
            tiles_per_exchange_bus: 2,
            assemble_64_bytes: Cycles(56),
        }
    }
}
