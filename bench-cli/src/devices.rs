//! Which devices does a machine have, and who is attached to them?
//!
//! What `gc-info` and `gc-inventory` say of a real one (Graphcore Command Line Tools, "gc-info",
//! "Device attributes"), in their form, as far as a simulated machine has it: no temperatures, no
//! power, no serial numbers, no versions of drivers; instead what the simulator knows and they
//! don't say, such as neighbours and links. Who is attached is known of runs that share the
//! machine ([`crate::locks`]).

use std::collections::BTreeMap;

use ipu_sim::device::{self, DeviceError, DeviceManager, Ports};
use ipu_sim::ids::IpuId;
use ipu_sim::spec::{MachineSpec, Wiring};
use ipu_sim::topology::{Node, Topology};
use schemars::JsonSchema;
use serde::Serialize;

use crate::Result;
use crate::locks::{FileLocks, Holder};
use crate::system::Machine;

/// Version of the form of [`Inventory`]; it rises with every change that breaks a reader.
const SCHEMA: u32 = 1;

/// All devices of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Inventory {
    schema_version: u32,
    /// The machine.
    pub system: String,
    /// Devices by id: single IPUs, then groups.
    pub devices: Vec<Device>,
    /// Place and user of single IPUs, by id.
    pub ipus: Vec<Ipu>,
}

/// An IPU or a group of them.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Device {
    /// Number that the device is attached by.
    pub id: u32,
    /// The ids of its single IPUs.
    pub ipus: Vec<u32>,
    /// How the IPUs of a group reach each other; none for a single one.
    pub routing: Option<&'static str>,
    /// Holders that keep the device from being attached, each once; nobody if it is free.
    pub attached_by: Vec<Holder>,
}

/// One IPU.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Ipu {
    /// Id of the IPU, and of the device of this IPU alone.
    pub id: u32,
    /// How the host reaches it: `PCIe`, or `Fabric` for IPU-Machines.
    pub target: &'static str,
    /// The card or IPU-Machine that it is on.
    pub board: u32,
    /// Number of the IPU on its board, which Graphcore's tools count down.
    pub board_ipu_index: u32,
    /// The rack.
    pub rack: u32,
    /// Tile clock.
    pub clock_hz: f64,
    /// Tiles.
    pub tiles: u32,
    /// Worker threads of a tile.
    pub workers_per_tile: u32,
    /// Memory of a tile.
    pub tile_memory_bytes: u64,
    /// Streaming memory of its board, shared by its IPUs.
    pub streaming_memory_bytes: u64,
    /// Neighbours over IPU-Links.
    pub links: Vec<Neighbour>,
    /// Rate of a link, each direction.
    pub link_bytes_per_second: f64,
    /// Process that is attached to the IPU.
    pub attached_by: Option<Holder>,
}

/// Links from an IPU to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Neighbour {
    /// Id of the IPU at the other end.
    pub ipu: u32,
    /// Links side by side.
    pub links: u32,
}

/// The devices of `machine`, with who is attached to the one of that name that runs share.
///
/// # Errors
///
/// Locks that can't be looked at.
pub fn inventory(machine: &Machine) -> Result<Inventory> {
    let holders = FileLocks::shared(&machine.spec.name).holders(machine.spec.n_ipus)?;
    Ok(with_holders(&machine.spec, &holders))
}

fn with_holders(machine: &MachineSpec, holders: &BTreeMap<IpuId, Holder>) -> Inventory {
    let manager = DeviceManager::new(machine.clone(), Ports::alone());
    let devices = manager.enumerate().iter();
    let topology = Topology::new(machine);
    let mut links = links(machine, &topology);
    Inventory {
        schema_version: SCHEMA,
        system: machine.name.clone(),
        devices: devices
            .map(|device| Device {
                id: device.id.0,
                ipus: device.ipus().map(|ipu| ipu.0).collect(),
                routing: routing(machine, *device),
                attached_by: attached_by(*device, holders),
            })
            .collect(),
        ipus: (0..machine.n_ipus)
            .zip(&mut links)
            .map(|(id, links)| Ipu {
                links: std::mem::take(links),
                ..ipu(machine, &topology, IpuId(id), holders)
            })
            .collect(),
    }
}

fn attached_by(device: device::Device, holders: &BTreeMap<IpuId, Holder>) -> Vec<Holder> {
    let mut found: Vec<Holder> = Vec::new();
    for holder in device.ipus().filter_map(|ipu| holders.get(&ipu)) {
        if !found.contains(holder) {
            found.push(holder.clone());
        }
    }
    found
}

/// A part of a torus is a ladder; beyond a rack, gateways join.
fn routing(machine: &MachineSpec, device: device::Device) -> Option<&'static str> {
    let rack = machine.n_ipus.min(machine.ipus_per_rack);
    let closed = machine.wiring == Wiring::Torus;
    match device.n_ipus {
        1 => None,
        n_ipus if n_ipus < rack || !closed && n_ipus == rack => Some("ladder"),
        n_ipus if n_ipus == rack => Some("torus"),
        _ if closed => Some("torus, gateways between racks"),
        _ => Some("ladder, gateways between racks"),
    }
}

/// The neighbours of every IPU, by id; looks at every link once.
fn links(machine: &MachineSpec, topology: &Topology) -> Vec<Vec<Neighbour>> {
    let mut links = vec![Vec::new(); machine.n_ipus as usize];
    for bundle in topology.bundles().values() {
        if let (Node::Ipu(from), Node::Ipu(to)) = (bundle.from, bundle.to) {
            links[from.0 as usize].push(Neighbour {
                ipu: to.0,
                links: bundle.links,
            });
        }
    }
    for of_ipu in &mut links {
        of_ipu.sort_by_key(|to| to.ipu);
    }
    links
}

/// One IPU without its links.
fn ipu(
    machine: &MachineSpec,
    topology: &Topology,
    id: IpuId,
    holders: &BTreeMap<IpuId, Holder>,
) -> Ipu {
    let per_board = machine.ipus_per_machine;
    Ipu {
        id: id.0,
        target: target(machine),
        board: topology.ipu_machine(id).0,
        board_ipu_index: per_board - 1 - id.0 % per_board,
        rack: topology.rack(id).0,
        clock_hz: machine.tile.clock.0,
        tiles: machine.tile.tiles_per_ipu,
        workers_per_tile: machine.tile.workers,
        tile_memory_bytes: machine.tile.memory.0,
        streaming_memory_bytes: machine.streaming_memory.capacity.0,
        links: Vec::new(),
        link_bytes_per_second: machine.links.raw.0,
        attached_by: holders.get(&id).cloned(),
    }
}

/// What has gateways is reached through them.
fn target(machine: &MachineSpec) -> &'static str {
    if machine.gateway.is_some() {
        "Fabric"
    } else {
        "PCIe"
    }
}

impl Inventory {
    /// All devices, as `gc-info --list-devices` has them.
    #[must_use]
    pub fn list(&self) -> String {
        let mut out = format!(
            "Graphcore device listing:\nPartition: {} [active]\n",
            self.system
        );
        for device in &self.devices {
            let attached = attached(&device.attached_by);
            let single = self.ipus.get(device.id as usize);
            match single {
                Some(ipu) => {
                    let place = ipu.place();
                    let (id, target) = (ipu.id, ipu.target);
                    out += &format!("-+- Id: [{id}], target: [{target}], {place}, {attached}\n");
                }
                None => {
                    let routing = device.routing.unwrap_or_default();
                    let id = device.id;
                    out += &format!(
                        "-+- Id: [{id}], target: [Multi IPU], routing: [{routing}], {attached}\n"
                    );
                    for (dnc, &id) in device.ipus.iter().enumerate() {
                        let place = self.ipus[id as usize].place();
                        out += &format!(" |--- Id: [{id}], DNC Id: [{dnc}], {place}\n");
                    }
                }
            }
        }
        out
    }

    /// One device and its IPUs alone.
    ///
    /// # Errors
    ///
    /// An id that no device has.
    pub fn only(&self, id: u32) -> std::result::Result<Self, DeviceError> {
        let device = self.device(id)?;
        let ipus = device
            .ipus
            .iter()
            .map(|&ipu| self.ipus[ipu as usize].clone());
        Ok(Self {
            devices: vec![device.clone()],
            ipus: ipus.collect(),
            system: self.system.clone(),
            ..*self
        })
    }

    fn device(&self, id: u32) -> std::result::Result<&Device, DeviceError> {
        self.devices
            .get(id as usize)
            .ok_or(DeviceError::NoSuchDevice {
                device: device::DeviceId(id),
                n_devices: self.devices.len(),
            })
    }

    /// One device and its IPUs, as `gc-info --device-info` and `gc-inventory` have them.
    ///
    /// # Errors
    ///
    /// An id that no device has.
    pub fn show(&self, id: u32) -> std::result::Result<String, DeviceError> {
        let device = self.device(id)?;
        let mut out = String::new();
        if let Some(routing) = device.routing {
            let ids: Vec<String> = device.ipus.iter().map(u32::to_string).collect();
            out += &format!(
                "Device Info:\n  id: {id}\n  target: Multi IPU\n  ipus: {}\n  routing: {routing}\n",
                ids.join(" ")
            );
            out += &user_lines(&device.attached_by);
        }
        for &ipu in &device.ipus {
            out += &self.ipus[ipu as usize].info();
        }
        Ok(out)
    }
}

impl Ipu {
    /// Where it is, for a list.
    fn place(&self) -> String {
        let board = match self.target {
            "Fabric" => "IPU-M",
            _ => "card",
        };
        format!(
            "{board}: [{}], IPU#: [{}]",
            self.board, self.board_ipu_index
        )
    }

    fn info(&self) -> String {
        let links: Vec<String> = self
            .links
            .iter()
            .map(|to| format!("{} to {}", to.links, to.ipu))
            .collect();
        let holders: Vec<Holder> = self.attached_by.iter().cloned().collect();
        format!(
            "Device Info:\n  id: {}\n  target: {}\n  board: {}\n  board ipu index: {}\n  rack: {}\n  \
             clock: {:.0}MHz\n  tiles: {}\n  workers per tile: {}\n  tile memory (bytes): {}\n  \
             streaming memory of the board (bytes): {}\n  links: {}\n  \
             link speed (raw, each direction): {:.1} GB/s\n{}",
            self.id,
            self.target,
            self.board,
            self.board_ipu_index,
            self.rack,
            self.clock_hz / 1e6,
            self.tiles,
            self.workers_per_tile,
            self.tile_memory_bytes,
            self.streaming_memory_bytes,
            links.join(", "),
            self.link_bytes_per_second / 1e9,
            user_lines(&holders),
        )
    }
}

/// `attached: [no]`, or by whom.
fn attached(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "attached: [no]".to_owned();
    }
    let names = holders.iter().map(|holder| match holder.process {
        Some(process) => format!("{} {process}", holder.executable),
        None => "unknown".to_owned(),
    });
    format!("attached: [{}]", names.collect::<Vec<_>>().join(", "))
}

fn user_lines(holders: &[Holder]) -> String {
    let lines = holders.iter().map(|holder| {
        let process = holder.process.map_or("unknown".into(), |id| id.to_string());
        format!(
            "  user executable: {}\n  user process id: {process}\n",
            holder.executable
        )
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(process: u32) -> Holder {
        Holder {
            process: Some(process),
            executable: "ipu-bench".into(),
        }
    }

    fn found(name: &str, holders: &[(u32, u32)]) -> Inventory {
        let machine = MachineSpec::shipped(name).unwrap();
        let holders = holders.iter().map(|&(ipu, id)| (IpuId(ipu), holder(id)));
        with_holders(&machine, &holders.collect())
    }

    #[test]
    fn a_group_is_attached_by_whoever_has_one_of_its_ipus() {
        let inventory = found("mk2-m2000", &[(0, 11), (1, 11), (2, 12)]);
        let attached: Vec<Vec<u32>> = inventory
            .devices
            .iter()
            .map(|device| {
                let processes = device.attached_by.iter();
                processes.filter_map(|holder| holder.process).collect()
            })
            .collect();
        let none = vec![];
        assert_eq!(
            attached,
            [
                vec![11],
                vec![11],
                vec![12],
                none,
                vec![11],
                vec![12],
                vec![11, 12]
            ]
        );
        assert!(
            inventory
                .list()
                .contains("Id: [6], target: [Multi IPU], routing: [ladder], attached: [ipu-bench 11, ipu-bench 12]\n")
        );
        let one = inventory.show(2).unwrap();
        assert!(one.ends_with("  user executable: ipu-bench\n  user process id: 12\n"));
    }

    /// (system, IPUs of a group, how they reach each other)
    #[test]
    fn groups_are_ladders_unless_they_fill_a_rack_of_a_torus() {
        for (system, n_ipus, routing) in [
            ("mk1-server16", 16, "ladder"),
            ("mk2-pod16", 16, "torus"),
            ("mk2-pod64", 32, "ladder"),
            ("mk2-pod64", 64, "torus"),
            ("mk2-pod128", 64, "torus"),
            ("bow-pod256", 128, "torus, gateways between racks"),
        ] {
            let inventory = found(system, &[]);
            let mut devices = inventory.devices.iter();
            let device = devices.find(|device| device.ipus.len() == n_ipus).unwrap();
            let wiring = MachineSpec::shipped(system).unwrap().wiring;
            let routing = if wiring == Wiring::Ladder {
                routing.replace("torus", "ladder")
            } else {
                routing.to_owned()
            };
            assert_eq!(device.routing, Some(&*routing), "{system} {n_ipus}");
        }
    }

    /// As the samples of "Device attributes" and "gc-info" have it: IPU 0 is number 1 on its C2
    /// card, and number 3 in its IPU-M2000.
    #[test]
    fn boards_count_their_ipus_down() {
        for (system, target, place) in [
            ("mk1-server16", "PCIe", "card: [0], IPU#: [1]"),
            ("mk2-m2000", "Fabric", "IPU-M: [0], IPU#: [3]"),
        ] {
            let ipus = found(system, &[]).ipus;
            assert_eq!((ipus[0].target, &*ipus[0].place()), (target, place));
        }
    }

    /// Looking at every pair of IPUs, this would take minutes.
    #[test]
    fn links_of_many_ipus_are_found_at_once() {
        let mut machine = MachineSpec::shipped("mk2-pod256").unwrap();
        machine.n_ipus = 1 << 16;
        let topology = Topology::new(&machine);
        let links = links(&machine, &topology);
        assert_eq!(links.len(), 1 << 16);
        for (id, links) in links.iter().enumerate() {
            assert!(links.is_sorted_by_key(|to| to.ipu));
            for to in links {
                let found = topology.links_between(IpuId(id as u32), IpuId(to.ipu));
                assert_eq!(found, to.links);
            }
            assert_eq!(links.iter().map(|to| to.links).sum::<u32>(), 10);
        }
    }

    #[test]
    fn links_are_those_of_the_wiring_and_mutual() {
        let ipus = found("mk2-pod64", &[]).ipus;
        for ipu in &ipus {
            let total: u32 = ipu.links.iter().map(|to| to.links).sum();
            assert_eq!((ipu.links.len(), total), (3, 10));
            for to in &ipu.links {
                let back = ipus[to.ipu as usize].links.iter();
                let mut back = back.filter(|back| back.ipu == ipu.id);
                assert_eq!(back.next().map(|back| back.links), Some(to.links));
            }
        }
    }
}
