//! What do the constants of a description mean, and do they fit together?
//!
//! Each constant is read here, once, by the line that gives it its type; the order of these lines
//! is the order of [`MachineSpec::constants`]. What no line reads is refused as unknown. After
//! this, nothing checks a machine's numbers again.

use std::collections::BTreeMap;

use super::description::{Description, Entry};
use super::error::{DescriptionFault, Result, SpecError};
use super::quantity::Dimension;
use super::reader::{Reader, unknown};
use super::shipped;
use super::{
    AmpSpec, ComputeSpec, ExchangeSpec, GatewaySpec, HostSpec, LinkSpec, MachineSpec, MemorySpec,
    StreamingMemorySpec, SyncSpec, TileSpec, Wiring,
};
use crate::units::Hertz;

/// Gives a description its meaning.
pub(super) fn resolve(description: Description) -> Result<MachineSpec> {
    let entries = description.entries.clone();
    read(description).map_err(|error| match error {
        // What is missing may stand there under a wrong name.
        SpecError::Incomplete { .. } => first_unknown(&entries).unwrap_or(error),
        error => error,
    })
}

/// The first constant that no machine has.
fn first_unknown(entries: &BTreeMap<String, Entry>) -> Option<SpecError> {
    // Pods have all the constants there are.
    let pod = shipped::find("mk2-pod128").and_then(|text| Description::read(text).ok())?;
    let known: Vec<&str> = pod.entries.keys().map(String::as_str).collect();
    let mut unknowns = entries
        .iter()
        .filter(|(key, _)| !pod.entries.contains_key(*key));
    let (key, entry) = unknowns.next()?;
    Some(unknown(key, entry, &known))
}

fn read(description: Description) -> Result<MachineSpec> {
    let name = description.name.filter(|name| !name.is_empty());
    let name = name.ok_or(SpecError::Incomplete { key: "name" })?;
    let mut reader = Reader::new(description.entries);
    let machine = MachineSpec {
        name,
        summary: description.summary.unwrap_or_default(),
        n_ipus: reader.count("system.ipus")?,
        ipus_per_machine: reader.count("system.ipus_per_machine")?,
        ipus_per_rack: reader.count("system.ipus_per_rack")?,
        wiring: wiring(&mut reader)?,
        tile: tile(&mut reader)?,
        compute: ComputeSpec {
            dispatch: reader.cycles("compute.dispatch")?,
        },
        exchange: exchange(&mut reader)?,
        sync: SyncSpec {
            global: reader.cycles("sync.global")?,
            hop: reader.seconds("sync.hop")?,
            external: reader.seconds("sync.external")?,
        },
        links: links(&mut reader)?,
        gateway: gateway(&mut reader)?,
        host: HostSpec {
            n_hosts: reader.count("host.hosts")?,
            ipu_bandwidth: reader.rate("host.ipu_bandwidth")?,
            machine_bandwidth: reader.rate("host.machine_bandwidth")?,
            server_bandwidth: reader.rate("host.server_bandwidth")?,
            latency: reader.seconds("host.latency")?,
            run: reader.seconds("host.run")?,
        },
        streaming_memory: StreamingMemorySpec {
            capacity: reader.bytes("streaming_memory.capacity")?,
            bandwidth: reader.rate("streaming_memory.bandwidth")?,
            latency: reader.seconds("streaming_memory.latency")?,
        },
        memory: memory(&mut reader)?,
        constants: Vec::new(),
    };
    reader.refuse_leftovers()?;
    check_system(&machine, &reader)?;
    check_chip(&machine, &reader)?;
    check_links(&machine, &reader)?;
    Ok(MachineSpec {
        constants: reader.into_constants(),
        ..machine
    })
}

fn wiring(reader: &mut Reader) -> Result<Wiring> {
    const KEY: &str = "system.wiring";
    const WORDS: [(&str, Wiring); 2] = [("ladder", Wiring::Ladder), ("torus", Wiring::Torus)];
    let entry = reader.take(KEY)?;
    let word = &entry.constant.value;
    let known = WORDS.iter().find(|(name, _)| name == word);
    known.map(|(_, wiring)| *wiring).ok_or_else(|| {
        reader.refuse(
            KEY,
            DescriptionFault::UnknownWord {
                key: KEY,
                expected: WORDS.iter().map(|(name, _)| *name).collect(),
                found: word.clone(),
            },
        )
    })
}

fn tile(reader: &mut Reader) -> Result<TileSpec> {
    Ok(TileSpec {
        clock: Hertz(reader.positive("chip.clock", Dimension::Hertz)?),
        tiles_per_ipu: reader.count("chip.tiles")?,
        memory: reader.bytes("chip.memory")?,
        memory_element: reader.bytes("chip.memory_element")?,
        workers: reader.count("chip.workers")?,
        data_path: reader.bytes("chip.data_path")?,
        amp: AmpSpec {
            units_f16_f16: reader.count("chip.amp_units_f16_f16")?,
            units_f16_f32: reader.count("chip.amp_units_f16_f32")?,
            units_f32_f32: reader.count("chip.amp_units_f32_f32")?,
            chain_depth: reader.count("chip.amp_chain_depth")?,
            coefficient_rate: reader.cycle_rate("chip.amp_coefficient_rate")?,
            coefficient_rate_interleaved: reader
                .cycle_rate("chip.amp_coefficient_rate_interleaved")?,
        },
        exchange_rate: reader.cycle_rate("chip.exchange_rate")?,
        tiles_per_exchange_bus: reader.count("chip.tiles_per_exchange_bus")?,
        assemble_64_bytes: reader.cycles("chip.assemble_64_bytes")?,
    })
}

fn exchange(reader: &mut Reader) -> Result<ExchangeSpec> {
    Ok(ExchangeSpec {
        columns: reader.count("exchange.columns")?,
        rows: reader.count("exchange.rows")?,
        tiles_per_block: reader.count("exchange.tiles_per_block")?,
        sync_max: reader.cycles("exchange.sync_max")?,
        phase_extra: reader.cycles("exchange.phase_extra")?,
        route_base: reader.cycles("exchange.route_base")?,
        route_per_row: reader.cycles("exchange.route_per_row")?,
        route_per_column: reader.cycles("exchange.route_per_column")?,
        control_words_per_fragment: reader.count("exchange.control_words_per_fragment")?,
        words_per_transfer_max: reader.count("exchange.words_per_transfer_max")?,
    })
}

fn links(reader: &mut Reader) -> Result<LinkSpec> {
    Ok(LinkSpec {
        links_per_ipu: reader.count("links.links_per_ipu")?,
        lanes_per_link: reader.count("links.lanes_per_link")?,
        links_per_rung: reader.count("links.links_per_rung")?,
        links_per_rail: reader.count("links.links_per_rail")?,
        links_per_flow: reader.count("links.links_per_flow")?,
        raw: reader.rate("links.raw")?,
        usable: reader.rate("links.usable")?,
        latency: reader.seconds("links.latency")?,
        hop: reader.seconds("links.hop")?,
    })
}

/// The section may be absent as a whole: a machine of one rack works without gateways.
fn gateway(reader: &mut Reader) -> Result<Option<GatewaySpec>> {
    if !reader.has_section("gateway") {
        return Ok(None);
    }
    Ok(Some(GatewaySpec {
        ports_per_machine: reader.count("gateway.ports_per_machine")?,
        port: reader.rate("gateway.port")?,
        latency: reader.seconds("gateway.latency")?,
    }))
}

fn memory(reader: &mut Reader) -> Result<MemorySpec> {
    Ok(MemorySpec {
        executable: reader.bytes("memory.executable")?,
        interleaved: reader.estimate("memory.interleaved")?,
        loader: reader.estimate("memory.loader")?,
        stack_worker: reader.estimate("memory.stack_worker")?,
        stack_supervisor: reader.estimate("memory.stack_supervisor")?,
        vertex_state_base: reader.estimate("memory.vertex_state_base")?,
        vertex_state_per_edge: reader.estimate("memory.vertex_state_per_edge")?,
        vertex_code_per_type: reader.estimate("memory.vertex_code_per_type")?,
        exchange_code_per_phase: reader.estimate("memory.exchange_code_per_phase")?,
        exchange_code_per_fragment: reader.estimate("memory.exchange_code_per_fragment")?,
        control_code_per_step: reader.estimate("memory.control_code_per_step")?,
    })
}

fn check_system(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let n_ipus = u64::from(machine.n_ipus);
    let per_machine = u64::from(machine.ipus_per_machine);
    let per_rack = u64::from(machine.ipus_per_rack);
    let pairs = "IPUs face each other in pairs";
    if n_ipus > 1 {
        reader.multiple("system.ipus", n_ipus, 2, pairs)?;
    }
    if per_machine > 1 {
        reader.multiple("system.ipus_per_machine", per_machine, 2, pairs)?;
    }
    let key = reader.own_first(["system.ipus_per_rack", "system.ipus_per_machine"]);
    reader.multiple(key, per_rack, per_machine, "IPUs of a machine")?;
    if n_ipus > per_machine {
        let key = reader.own_first(["system.ipus", "system.ipus_per_machine"]);
        reader.multiple(key, n_ipus, per_machine, "IPUs of a machine")?;
    }
    if n_ipus > per_rack {
        let key = reader.own_first(["system.ipus", "system.ipus_per_rack"]);
        reader.multiple(key, n_ipus, per_rack, "IPUs of a rack")?;
        if machine.gateway.is_none() {
            let most = "IPUs of a rack, for want of a [gateway] between racks";
            reader.at_most(key, n_ipus, per_rack, most)?;
        }
    }
    Ok(())
}

/// Columns or rows of a grid of tiles.
const GRID_MOST: u64 = 1024;

/// AMP units of a tile.
const AMP_UNITS_MOST: u64 = 64;

/// Bytes of a load.
const DATA_PATH_MOST: u64 = 1024;

fn check_chip(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let tile = &machine.tile;
    let exchange = &machine.exchange;
    let tiles = u64::from(tile.tiles_per_ipu);
    let element = tile.memory_element.0;
    let elements = "bytes of a memory element";
    let key = reader.own_first(["chip.memory", "chip.memory_element"]);
    reader.multiple(key, tile.memory.0, element, elements)?;
    let regions = ["memory.executable", "memory.interleaved"];
    let key = reader.own_first([regions[0], "chip.memory_element"]);
    reader.multiple(key, machine.memory.executable.0, element, elements)?;
    let key = reader.own_first(["chip.memory", regions[0], regions[1]]);
    let both = machine.memory.executable + machine.memory.interleaved;
    if key == "chip.memory" {
        reader.equal(key, tile.memory.0, both.0, "bytes of both regions")?;
    } else {
        reader.equal(
            key,
            both.0,
            tile.memory.0,
            "bytes of a tile, for both regions",
        )?;
    }
    let stacks = machine.memory.stacks(tile.workers);
    let key = reader.own_first([
        "memory.loader",
        "memory.stack_worker",
        "memory.stack_supervisor",
        "chip.workers",
        "chip.memory",
    ]);
    let taken = machine.memory.loader + stacks;
    reader.at_most(
        key,
        taken.0,
        tile.memory.0,
        "bytes of a tile, for loader and stacks",
    )?;
    let key = reader.own_first(["chip.tiles", "chip.tiles_per_exchange_bus"]);
    let per_bus = u64::from(tile.tiles_per_exchange_bus);
    reader.multiple(key, tiles, per_bus, "tiles of an exchange bus")?;
    let key = reader.own_first([
        "chip.tiles",
        "exchange.columns",
        "exchange.rows",
        "exchange.tiles_per_block",
    ]);
    let grid = [exchange.columns, exchange.rows, exchange.tiles_per_block];
    for (key, size) in [
        ("exchange.columns", exchange.columns),
        ("exchange.rows", exchange.rows),
    ] {
        let most = "far beyond any grid, and few enough for a table of routes";
        reader.at_most(key, u64::from(size), GRID_MOST, most)?;
    }
    let places = grid.into_iter().map(u64::from).product();
    reader.at_most(
        key,
        tiles,
        places,
        "columns times rows times tiles of a block",
    )?;
    reader.multiple("chip.data_path", tile.data_path.0, 4, "bytes of an f32")?;
    let most = "B that a tile may load in a cycle, far beyond any";
    reader.at_most("chip.data_path", tile.data_path.0, DATA_PATH_MOST, most)?;
    for (key, units) in [
        ("chip.amp_units_f16_f16", tile.amp.units_f16_f16),
        ("chip.amp_units_f16_f32", tile.amp.units_f16_f32),
        ("chip.amp_units_f32_f32", tile.amp.units_f32_f32),
    ] {
        let most = "AMP units, far beyond any";
        reader.at_most(key, u64::from(units), AMP_UNITS_MOST, most)?;
    }
    Ok(())
}

fn check_links(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let links = &machine.links;
    let blamed = reader.own_first([
        "links.links_per_rail",
        "links.links_per_rung",
        "links.links_per_ipu",
    ]);
    reader.at_most(
        blamed,
        u64::from(links.links_per_rung) + 2 * u64::from(links.links_per_rail),
        u64::from(links.links_per_ipu),
        "links of an IPU, for one rung and two rails",
    )?;
    let key = reader.own_first(["links.links_per_flow", "links.links_per_rung"]);
    reader.at_most(
        key,
        u64::from(links.links_per_flow),
        u64::from(links.links_per_rung),
        "links of a rung",
    )?;
    // Rates are compared in whole bytes a second: a finer difference is no contradiction.
    let key = reader.own_first(["links.usable", "links.raw"]);
    reader.at_most(
        key,
        links.usable.0 as u64,
        links.raw.0 as u64,
        "the raw rate in B/s",
    )
}
