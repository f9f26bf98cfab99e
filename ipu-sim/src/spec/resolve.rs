//! What do the constants of a description mean, and do they fit together?
//!
//! The table of constants reads each of them, once, in its own bounds; here are those that one
//! constant sets another. After this, nothing checks a machine's numbers again.

use super::MachineSpec;
use super::constant::ConstantId as Id;
use super::description::Description;
use super::error::{Result, SpecError};
use super::reader::Reader;
use super::table;

/// Gives a description its meaning.
pub(super) fn resolve(description: Description) -> Result<MachineSpec> {
    // A name that no constant has comes first: what is missing may stand there under a wrong one.
    let mut reader = Reader::new(description.entries)?;
    let name = description.name.filter(|name| !name.is_empty());
    let name = name.ok_or(SpecError::Incomplete { key: "name" })?;
    let summary = description.summary.unwrap_or_default();
    let machine = table::read(name, summary, &mut reader)?;
    check_system(&machine, &reader)?;
    check_chip(&machine, &reader)?;
    check_links(&machine, &reader)?;
    Ok(MachineSpec {
        provenance: reader.into_provenance(),
        ..machine
    })
}

fn check_system(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let n_ipus = u64::from(machine.n_ipus);
    let per_machine = u64::from(machine.ipus_per_machine);
    let per_rack = u64::from(machine.ipus_per_rack);
    let pairs = "IPUs face each other in pairs";
    if n_ipus > 1 {
        reader.multiple(Id::SystemIpus, n_ipus, 2, pairs)?;
    }
    if per_machine > 1 {
        reader.multiple(Id::SystemIpusPerMachine, per_machine, 2, pairs)?;
    }
    let id = reader.own_first([Id::SystemIpusPerRack, Id::SystemIpusPerMachine]);
    reader.multiple(id, per_rack, per_machine, "IPUs of a machine")?;
    if n_ipus > per_machine {
        let id = reader.own_first([Id::SystemIpus, Id::SystemIpusPerMachine]);
        reader.multiple(id, n_ipus, per_machine, "IPUs of a machine")?;
    }
    if n_ipus > per_rack {
        let id = reader.own_first([Id::SystemIpus, Id::SystemIpusPerRack]);
        reader.multiple(id, n_ipus, per_rack, "IPUs of a rack")?;
        if machine.gateway.is_none() {
            let most = "IPUs of a rack, for want of a [gateway] between racks";
            reader.at_most(id, n_ipus, per_rack, most)?;
        }
    }
    Ok(())
}

fn check_chip(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let tile = &machine.tile;
    let exchange = &machine.exchange;
    let tiles = u64::from(tile.tiles_per_ipu);
    let element = tile.memory_element.0;
    let elements = "bytes of a memory element";
    let id = reader.own_first([Id::ChipMemory, Id::ChipMemoryElement]);
    reader.multiple(id, tile.memory.0, element, elements)?;
    let regions = [Id::MemoryExecutable, Id::MemoryInterleaved];
    let id = reader.own_first([regions[0], Id::ChipMemoryElement]);
    reader.multiple(id, machine.memory.executable.0, element, elements)?;
    let id = reader.own_first([Id::ChipMemory, regions[0], regions[1]]);
    let both = machine.memory.executable + machine.memory.interleaved;
    if id == Id::ChipMemory {
        reader.equal(id, tile.memory.0, both.0, "bytes of both regions")?;
    } else {
        reader.equal(
            id,
            both.0,
            tile.memory.0,
            "bytes of a tile, for both regions",
        )?;
    }
    let stacks = machine.memory.stacks(tile.workers);
    let id = reader.own_first([
        Id::MemoryLoader,
        Id::MemoryStackWorker,
        Id::MemoryStackSupervisor,
        Id::ChipWorkers,
        Id::ChipMemory,
    ]);
    let taken = machine.memory.loader + stacks;
    reader.at_most(
        id,
        taken.0,
        tile.memory.0,
        "bytes of a tile, for loader and stacks",
    )?;
    let id = reader.own_first([Id::ChipTiles, Id::ChipTilesPerExchangeBus]);
    let per_bus = u64::from(tile.tiles_per_exchange_bus);
    reader.multiple(id, tiles, per_bus, "tiles of an exchange bus")?;
    let id = reader.own_first([
        Id::ChipTiles,
        Id::ExchangeColumns,
        Id::ExchangeRows,
        Id::ExchangeTilesPerBlock,
    ]);
    let grid = [exchange.columns, exchange.rows, exchange.tiles_per_block];
    let places = grid.into_iter().map(u64::from).product();
    reader.at_most(
        id,
        tiles,
        places,
        "columns times rows times tiles of a block",
    )
}

fn check_links(machine: &MachineSpec, reader: &Reader) -> Result<()> {
    let links = &machine.links;
    let id = reader.own_first([
        Id::LinksLinksPerRail,
        Id::LinksLinksPerRung,
        Id::LinksLinksPerIpu,
    ]);
    reader.at_most(
        id,
        u64::from(links.links_per_rung) + 2 * u64::from(links.links_per_rail),
        u64::from(links.links_per_ipu),
        "links of an IPU, for one rung and two rails",
    )?;
    let id = reader.own_first([Id::LinksLinksPerFlow, Id::LinksLinksPerRung]);
    reader.at_most(
        id,
        u64::from(links.links_per_flow),
        u64::from(links.links_per_rung),
        "links of a rung",
    )?;
    // Rates are compared in whole bytes a second: a finer difference is no contradiction.
    let id = reader.own_first([Id::LinksUsable, Id::LinksRaw]);
    reader.at_most(
        id,
        links.usable.0 as u64,
        links.raw.0 as u64,
        "the raw rate in B/s",
    )
}
