//! What descriptions say, and what is refused in them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::constant::{Class, Expense};
use super::error::{DescriptionFault, SpecError};
use super::fixtures::{gc200, machine, small};
use super::quantity::Unit;
use super::*;
use crate::cost::amp::AmpTypes;
use crate::topology::Topology;

/// A description that builds on a shipped machine; its constants start at line 4.
fn over_pod16(constants: &str) -> String {
    format!("name = \"mine\"\nbase = [\"mk2-pod16\"]\n\n{constants}\n")
}

#[track_caller]
fn refuse(text: &str, expected: &str) {
    let error = MachineSpec::from_toml(text).expect_err(text);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_tile_of_a_mk2_machine_is_the_one_the_cost_laws_are_tested_on() {
    assert_eq!(machine("mk2-m2000").tile, gc200());
}

/// (name, IPUs, clock in Hz, tiles, bytes of a tile, hosts, racks)
#[test]
fn shipped_machines_are_what_their_names_say() {
    let expected = [
        ("mk1-server16", 16, 1.6e9, 1216, 262_144, 1, 1),
        ("mk2-m2000", 4, 1.325e9, 1472, 638_976, 1, 1),
        ("mk2-pod16", 16, 1.325e9, 1472, 638_976, 1, 1),
        ("mk2-pod64", 64, 1.325e9, 1472, 638_976, 1, 1),
        ("mk2-pod128", 128, 1.325e9, 1472, 638_976, 2, 2),
        ("mk2-pod256", 256, 1.325e9, 1472, 638_976, 4, 4),
        ("bow-pod16", 16, 1.85e9, 1472, 638_976, 1, 1),
        ("bow-pod64", 64, 1.85e9, 1472, 638_976, 1, 1),
        ("bow-pod128", 128, 1.85e9, 1472, 638_976, 2, 2),
        ("bow-pod256", 256, 1.85e9, 1472, 638_976, 4, 4),
    ];
    let names: Vec<&str> = expected.iter().map(|row| row.0).collect();
    assert_eq!(shipped::machines(), names);
    for (name, n_ipus, clock, tiles, memory, hosts, racks) in expected {
        let spec = machine(name);
        assert_eq!(spec.name, name, "a machine is named as its file");
        assert!(!spec.summary.is_empty(), "{name}");
        assert_eq!((spec.n_ipus, spec.n_racks()), (n_ipus, racks), "{name}");
        assert_eq!(spec.tile.clock, Hertz(clock), "{name}");
        assert_eq!(spec.tile.tiles_per_ipu, tiles, "{name}");
        assert_eq!(spec.tile.memory, Bytes(memory), "{name}");
        assert_eq!(spec.host.n_hosts, hosts, "{name}");
    }
    assert_eq!(machine("mk2-pod64").n_tiles(), 94_208);
}

/// FLOP a cycle of all units times tiles and clock is the published peak, in TFLOPS.
#[test]
fn peaks_are_the_published_ones() {
    for (name, f16, f32) in [
        ("mk1-server16", 124.5, 31.1),
        ("mk2-pod64", 249.7, 62.4),
        ("bow-pod16", 348.6, 87.1),
    ] {
        let tile = machine(name).tile;
        let check = |types: AmpTypes, published: f64| {
            let tiles = f64::from(tile.tiles_per_ipu);
            let peak = types.peak_flops_per_cycle(&tile) * tiles * tile.clock.0 / 1e12;
            assert!((peak - published).abs() < 0.06, "{name}: {peak}");
        };
        check(AmpTypes::F16F16, f16);
        check(AmpTypes::F32F32, f32);
    }
}

#[test]
fn every_constant_stands_in_one_shipped_file_of_its_kind_of_chip() {
    let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in shipped::bases() {
        let text = shipped::find(name).unwrap();
        let own: toml::Table = toml::from_str(text).unwrap();
        for (section, constants) in own.iter().filter(|(_, value)| value.is_table()) {
            for constant in constants.as_table().unwrap().keys() {
                let key = format!("{section}.{constant}");
                homes.entry(key).or_default().push(name);
            }
        }
    }
    for key in ["memory.stack_worker", "sync.global", "links.usable"] {
        assert_eq!(homes[key], ["parts/ipu"], "{key}");
    }
    assert_eq!(
        homes["chip.clock"],
        ["parts/gc2", "parts/gc200", "parts/bow"]
    );
    assert_eq!(homes["gateway.port"], ["mk2-m2000"]);
}

#[test]
fn constants_keep_their_sources() {
    for name in shipped::machines() {
        for constant in machine(name).constants() {
            assert!(constant.source.len() > 3, "{name}: {}", constant.id);
        }
    }
    let bow = machine("bow-pod16");
    let clock = bow.constant(ConstantId::ChipClock).unwrap();
    assert_eq!(
        (clock.value.to_string(), clock.kind),
        ("1.85 GHz".to_owned(), Kind::Documented)
    );
    let launch = bow.constant(ConstantId::ExchangePhaseExtra).unwrap();
    assert_eq!(
        launch.range.map(|ends| ends.map(|end| end.to_string())),
        Some(["0 cycles".to_owned(), "474 cycles".to_owned()])
    );
}

#[test]
fn a_machine_written_out_reads_back_equal() {
    for name in shipped::machines() {
        let spec = machine(name);
        assert_eq!(MachineSpec::from_toml(&spec.to_toml()), Ok(spec), "{name}");
    }
}

/// A name for a constant is its key in other letters.
#[test]
fn keys_and_names_of_constants_are_alike() {
    for id in ConstantId::ALL {
        let words = id.key().split(['.', '_']);
        let name: String = words
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        assert_eq!(format!("{id:?}"), name);
        assert_eq!(ConstantId::from_key(id.key()), Some(*id));
    }
    let pod = machine("mk2-pod128");
    let all: Vec<ConstantId> = pod.constants().map(|constant| constant.id).collect();
    assert_eq!(all, ConstantId::ALL);
    // Without gateways, as a description that doesn't have the section.
    let server = machine("mk1-server16");
    assert_eq!(server.constants().count(), ConstantId::ALL.len() - 3);
    assert_eq!(server.constant(ConstantId::GatewayPort), None);
}

/// What takes time is the price of something.
#[test]
fn times_and_rates_are_prices() {
    for id in ConstantId::ALL {
        let unused = [
            ConstantId::LinksRaw,
            ConstantId::ChipAmpCoefficientRateInterleaved,
        ];
        let takes_no_time = matches!(id.expense(), Expense::Memory | Expense::Nothing);
        match id.class() {
            Class::Time => assert!(!takes_no_time, "{id}"),
            Class::Rate => assert_eq!(takes_no_time, unused.contains(id), "{id}"),
            Class::Size | Class::Count | Class::Choice => {}
        }
        if id.section() == "memory" {
            assert_eq!(id.expense(), Expense::Memory, "{id}");
        }
    }
}

#[test]
fn a_value_is_told_as_the_field_has_it_in_the_unit_of_its_description() {
    let mut pod = machine("mk2-pod16");
    for (id, value) in [
        (ConstantId::ChipClock, "1.325 GHz"),
        (ConstantId::ChipTiles, "1472"),
        (ConstantId::LinksHop, "0.1 us"),
        (ConstantId::SystemWiring, "ladder"),
    ] {
        assert_eq!(pod.constant(id).unwrap().value.to_string(), value);
    }
    pod.tile.clock = Hertz(1.5e9);
    pod.links.hop = SimSeconds(15e-9);
    pod.memory.interleaved = Bytes(416 * 1024 + 512);
    pod.wiring = Wiring::Torus;
    let text = pod.to_toml();
    for line in [
        "clock = { value = \"1.5 GHz\", ",
        "hop = { value = \"0.015 us\", ",
        "interleaved = { value = \"416.5 KiB\", ",
        "wiring = { value = \"torus\", ",
    ] {
        let line = format!("\n{line}kind = \"assumed\", source = \"given by a program\" }}\n");
        assert!(text.contains(&line), "{line}\n{text}");
    }
    // Of what came from no description, nothing else is known.
    let mut server = machine("mk1-server16");
    server.gateway = machine("mk2-pod16").gateway;
    let port = server.constant(ConstantId::GatewayPort).unwrap();
    assert_eq!(port.value.to_string(), "12500000000 B/s");
    assert_eq!(
        (port.kind, port.source),
        (Kind::Assumed, "given by a program")
    );
    assert_eq!(
        MachineSpec::from_toml(&server.to_toml()).unwrap().gateway,
        server.gateway
    );
}

#[test]
fn a_change_is_assumed_and_has_no_range() {
    let pod = machine("mk2-pod16");
    let changed = pod.with("links.hop", "0.2 us").unwrap();
    assert_eq!(changed.links.hop, SimSeconds(0.2e-6));
    let hop = changed.constant(ConstantId::LinksHop).unwrap();
    assert_eq!(
        (hop.kind, hop.source, hop.range),
        (Kind::Assumed, "what if", None)
    );
    let others = |machine: &MachineSpec| -> String {
        let lines = machine.constants();
        let others = lines.filter(|constant| constant.id != ConstantId::LinksHop);
        others.map(|constant| constant.to_toml() + "\n").collect()
    };
    assert_eq!(others(&changed), others(&pod));
}

#[test]
fn a_change_is_refused_as_a_file_is() {
    let pod = machine("mk2-pod16");
    for (key, value, expected) in [
        ("chip.tiles", "0", "`chip.tiles`: expected more than zero"),
        (
            "chip.tiles",
            "1474",
            "`chip.tiles`: expected at most 1472 (columns times rows times tiles of a block), got \
             1474",
        ),
        (
            "chip.tiles",
            "8193",
            "`chip.tiles`: expected at most 8192 (tiles, over five times those of any IPU, and few \
             enough for a run to take seconds), got 8193",
        ),
        (
            "chip.memory",
            "0 KiB",
            "`chip.memory`: expected more than zero",
        ),
        (
            "chip.memory",
            "640 KiB",
            "`chip.memory`: expected 638976 (bytes of both regions), got 655360",
        ),
        (
            "chip.memory",
            "638976",
            "`chip.memory`: expected a size such as \"624 KiB\", got `638976`",
        ),
        (
            "system.wiring",
            "ring",
            "`system.wiring`: expected one of ladder, torus, got `ring`",
        ),
        (
            "compute.clock",
            "1 GHz",
            "unknown constant `compute.clock` (did you mean `chip.clock`?), expected one of \
             compute.dispatch, compute.trust_ratio",
        ),
    ] {
        assert_eq!(pod.with(key, value).unwrap_err().to_string(), expected);
    }
    assert_eq!(
        machine("mk1-server16").with("gateway.port", "1 GB/s"),
        Err(SpecError::Incomplete {
            key: "gateway.ports_per_machine"
        })
    );
    // A machine that was made impossible by hand has no changes.
    let mut impossible = pod;
    impossible.n_ipus = 3;
    let error = impossible.with("chip.clock", "1 GHz").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`system.ipus`: expected a multiple of 2 (IPUs face each other in pairs), got 3"
    );
}

#[test]
fn a_later_base_wins_and_the_file_itself_last() {
    let text = "name = \"mine\"\nbase = [\"mk2-pod64\", \"parts/bow\"]\n[chip]\n\
        clock = { value = \"2 GHz\", kind = \"assumed\", source = \"what if\" }";
    let mine = MachineSpec::from_toml(text).unwrap();
    let bow = machine("bow-pod64");
    assert_eq!(mine.tile.clock, Hertz(2e9));
    assert_eq!((mine.n_ipus, &mine.links), (64, &bow.links));
}

#[test]
fn a_scaled_down_machine_differs_in_its_counts_only() {
    let small = small();
    let whole = machine("mk2-pod16");
    assert_eq!((small.n_ipus, small.tile.tiles_per_ipu), (4, 32));
    let tile = TileSpec {
        tiles_per_ipu: 1472,
        ..small.tile.clone()
    };
    assert_eq!(tile, whole.tile);
    assert_eq!(small.links, whole.links);
    let error = whole.scaled_down(4, 1474).unwrap_err();
    let SpecError::Constant { fault } = error else {
        panic!("{error}")
    };
    assert_eq!(
        *fault,
        DescriptionFault::MoreThan {
            key: "chip.tiles",
            most: 1472,
            most_what: "columns times rows times tiles of a block",
            value: 1474
        }
    );
}

#[test]
fn a_description_says_where_it_is_wrong() {
    refuse(
        &over_pod16("[chip]\nclok = { value = \"1 GHz\", kind = \"assumed\", source = \"\" }"),
        "line 5, column 1: unknown constant `chip.clok` (did you mean `chip.clock`?), expected one of \
         chip.amp_chain_depth, chip.amp_coefficient_rate, \
         chip.amp_coefficient_rate_interleaved, chip.amp_units_f16_f16, \
         chip.amp_units_f16_f32, chip.amp_units_f32_f32, chip.assemble_64_bytes, chip.clock, \
         chip.data_path, chip.exchange_rate, chip.memory, chip.memory_element, chip.tiles, \
         chip.tiles_per_exchange_bus, chip.workers",
    );
    refuse(
        &over_pod16("[chips]\n"),
        "line 4, column 2: unknown field `chips` (did you mean `chip`?), expected one of `name`, `summary`, `base`, \
         `system`, `chip`, `compute`, `exchange`, `sync`, `links`, `gateway`, `host`, \
         `streaming_memory`, `memory`",
    );
    refuse(
        &over_pod16("[chip]\nclock = { value = \"1 GHz\", kind = \"guessed\", source = \"\" }"),
        "line 5, column 35: unknown variant `guessed`, expected one of `documented`, `measured`, \
         `derived`, `assumed`, `fitted`",
    );
    refuse(
        &over_pod16("[chip]\nclock = { value = \"1 GHz\", kind = \"assumed\" }"),
        "line 5, column 9: missing field `source`",
    );
    refuse(
        &over_pod16("[chip]\nclock = \"1 GHz\""),
        "line 5, column 9: invalid type: string \"1 GHz\", expected a constant such as { value = \
         \"1 GHz\", kind = \"assumed\", source = \"what if\" }",
    );
    refuse(
        &over_pod16("[chip]\nclock = [\"1 GHz\", \"assumed\", \"what if\"]"),
        "line 5, column 9: invalid type: sequence, expected a constant such as { value = \
         \"1 GHz\", kind = \"assumed\", source = \"what if\" }",
    );
    refuse(
        &over_pod16("[chip"),
        "line 4, column 6: unclosed table, expected `]`",
    );
    refuse(
        "name = \"mine\"\nbase = [\"mk2-pod16\", \"mk3\"]",
        "line 2, column 22: unknown base `mk3`, expected one of mk1-server16, mk2-m2000, \
         mk2-pod16, mk2-pod64, mk2-pod128, mk2-pod256, bow-pod16, bow-pod64, bow-pod128, \
         bow-pod256, parts/ipu, parts/gc2, parts/gc200, parts/bow",
    );
    refuse(
        "name = \"mine\"\nbase = [\"mk2-pod61\"]",
        "line 2, column 9: unknown base `mk2-pod61` (did you mean `mk2-pod64`?), expected one of \
         mk1-server16, mk2-m2000, mk2-pod16, mk2-pod64, mk2-pod128, mk2-pod256, bow-pod16, \
         bow-pod64, bow-pod128, bow-pod256, parts/ipu, parts/gc2, parts/gc200, parts/bow",
    );
    refuse(
        &over_pod16("[compute]\nclock = { value = \"1 GHz\", kind = \"assumed\", source = \"\" }"),
        "line 5, column 1: unknown constant `compute.clock` (did you mean `chip.clock`?), \
         expected one of compute.dispatch, compute.trust_ratio",
    );
    // What is missing stands there under another name.
    refuse(
        "name = \"mine\"\nbase = [\"parts/gc200\"]\n[system]\n\
         ipu = { value = 4, kind = \"assumed\", source = \"\" }",
        "line 4, column 1: unknown constant `system.ipu` (did you mean `system.ipus`?), expected \
         one of system.ipus, system.ipus_per_machine, system.ipus_per_rack, system.wiring",
    );
    refuse(
        &over_pod16("[chip]\nclock = { valeu = \"1 GHz\", kind = \"assumed\", source = \"\" }"),
        "line 5, column 11: unknown field `valeu` (did you mean `value`?), expected one of \
         `value`, `kind`, `source`, `range`",
    );
    refuse(
        "name = \"\"\nbase = [\"mk2-pod16\"]",
        "the machine description doesn't give `name`",
    );
    refuse(
        "base = [\"parts/gc200\"]",
        "the machine description doesn't give `name`",
    );
    refuse(
        "name = \"mine\"\nbase = [\"parts/gc200\"]",
        "the machine description doesn't give `system.ipus`",
    );
}

/// One constant over `mk2-pod16`; the value starts at line 5.
#[test]
fn impossible_values_are_refused() {
    for (section, constant, expected) in [
        (
            "chip",
            "tiles = { value = 0",
            "line 5, column 19: `chip.tiles`: expected more than zero",
        ),
        (
            "chip",
            "tiles = { value = \"1472\"",
            "line 5, column 19: `chip.tiles`: expected a whole number such as 1472, without \
             quotes or unit, got `1472`",
        ),
        (
            "chip",
            "tiles = { value = 5000000000",
            "line 5, column 19: `chip.tiles`: expected at most 65536, got `5000000000`",
        ),
        (
            "exchange",
            "columns = { value = 4294967295",
            "line 5, column 21: `exchange.columns`: expected at most 65536, got `4294967295`",
        ),
        (
            "memory",
            "stack_worker = { value = \"1 MB\"",
            "line 5, column 26: `memory.stack_worker`: expected at most 638976 (bytes of a tile, \
             for loader and stacks), got 6001616",
        ),
        (
            "streaming_memory",
            "capacity = { value = \"65537 GiB\"",
            "line 5, column 22: `streaming_memory.capacity`: expected at most 65536 GiB, got \
             `65537 GiB`",
        ),
        (
            "chip",
            "tiles = { value = -2",
            "line 5, column 19: `chip.tiles`: expected a whole number such as 1472, without \
             quotes or unit, got `-2`",
        ),
        (
            "chip",
            "tiles = { value = 1472.0",
            "line 5, column 19: `chip.tiles`: expected a whole number such as 1472, without \
             quotes or unit, got `1472.0`",
        ),
        (
            "chip",
            "tiles = { value = 1474",
            "line 5, column 19: `chip.tiles`: expected at most 1472 (columns times rows times \
             tiles of a block), got 1474",
        ),
        (
            "chip",
            "clock = { value = \"-1 GHz\"",
            "line 5, column 19: `chip.clock`: expected a frequency such as \"1.325 GHz\", got \
             `-1 GHz`",
        ),
        (
            "chip",
            "clock = { value = \"1.325\"",
            "line 5, column 19: `chip.clock`: expected a frequency such as \"1.325 GHz\", got \
             `1.325`",
        ),
        (
            "chip",
            "clock = { value = \"0 GHz\"",
            "line 5, column 19: `chip.clock`: expected more than zero",
        ),
        (
            "chip",
            "clock = { value = \"1 kHz\"",
            "line 5, column 19: `chip.clock`: expected at least 1 MHz, got `1 kHz`",
        ),
        (
            "chip",
            "clock = { value = \"1001 GHz\"",
            "line 5, column 19: `chip.clock`: expected at most 1000 GHz, got `1001 GHz`",
        ),
        (
            "chip",
            "workers = { value = 1300",
            "line 5, column 21: `chip.workers`: expected at most 638976 (bytes of a tile, for \
             loader and stacks), got 667216",
        ),
        (
            "exchange",
            "rows = { value = 22",
            "line 5, column 18: `exchange.rows`: expected at most 1408 (columns times rows times \
             tiles of a block), got 1472",
        ),
        (
            "memory",
            "executable = { value = \"224 KiB\"",
            "line 5, column 24: `memory.executable`: expected 638976 (bytes of a tile, for both \
             regions), got 655360",
        ),
        (
            "memory",
            "loader = { value = \"1 GB\"",
            "line 5, column 20: `memory.loader`: expected at most 638976 (bytes of a tile, for \
             loader and stacks), got 1000003584",
        ),
        (
            "links",
            "latency = { value = \"61 s\"",
            "line 5, column 21: `links.latency`: expected at most 60 s, got `61 s`",
        ),
        (
            "links",
            "usable = { value = \"1 B/s\"",
            "line 5, column 20: `links.usable`: expected at least 1 MB/s, got `1 B/s`",
        ),
        (
            "links",
            "raw = { value = \"1 GB/s\"",
            "line 5, column 17: `links.raw`: expected at most 1000000000 (the raw rate in B/s), \
             got 13250000000",
        ),
        (
            "links",
            "links_per_ipu = { value = 9",
            "line 5, column 27: `links.links_per_ipu`: expected at most 9 (links of an IPU, for \
             one rung and two rails), got 10",
        ),
        (
            "system",
            "ipus_per_machine = { value = 3",
            "line 5, column 30: `system.ipus_per_machine`: expected a multiple of 2 (IPUs face \
             each other in pairs), got 3",
        ),
        (
            "system",
            "ipus_per_rack = { value = 6",
            "line 5, column 27: `system.ipus_per_rack`: expected a multiple of 4 (IPUs of a \
             machine), got 6",
        ),
        (
            "system",
            "ipus = { value = 65540",
            "line 5, column 18: `system.ipus`: expected at most 65536, got `65540`",
        ),
        (
            "chip",
            "tiles = { value = 1471",
            "line 5, column 19: `chip.tiles`: expected a multiple of 2 (tiles of an exchange \
             bus), got 1471",
        ),
        (
            "chip",
            "memory = { value = 638976",
            "line 5, column 20: `chip.memory`: expected a size such as \"624 KiB\", got `638976`",
        ),
        (
            "chip",
            "memory = { value = \"624 kib\"",
            "line 5, column 20: `chip.memory`: expected a unit of B, KiB, MiB, GiB, kB, MB, GB, \
             got `kib`",
        ),
        (
            "chip",
            "memory = { value = \"625 KiB\"",
            "line 5, column 20: `chip.memory`: expected a multiple of 16384 (bytes of a memory \
             element), got 640000",
        ),
        (
            "chip",
            "memory = { value = \"640 KiB\"",
            "line 5, column 20: `chip.memory`: expected 638976 (bytes of both regions), got \
             655360",
        ),
        (
            "links",
            "usable = { value = \"0 GB/s\"",
            "line 5, column 20: `links.usable`: expected more than zero",
        ),
        (
            "links",
            "usable = { value = \"20 GB/s\"",
            "line 5, column 20: `links.usable`: expected at most 16000000000 (the raw rate in \
             B/s), got 20000000000",
        ),
        (
            "links",
            "links_per_rail = { value = 3",
            "line 5, column 28: `links.links_per_rail`: expected at most 10 \
             (links of an IPU, for one rung and two rails), got 12",
        ),
        (
            "links",
            "latency = { value = \"2 us\", range = [\"0 us\", \"1 us\"]",
            "line 5, column 21: `links.latency`: expected a value from `0 us` to `1 us`, its own \
             range, got `2 us`",
        ),
        (
            "system",
            "wiring = { value = \"ring\"",
            "line 5, column 20: `system.wiring`: expected one of ladder, torus, got `ring`",
        ),
        (
            "system",
            "wiring = { value = \"torus\", range = [\"ladder\", \"torus\"]",
            "line 5, column 20: `system.wiring`: expected no range, since a word is no number",
        ),
        (
            "system",
            "ipus = { value = 18",
            "line 5, column 18: `system.ipus`: expected a multiple of 4 (IPUs of a machine), got \
             18",
        ),
        (
            "system",
            "ipus = { value = 96",
            "line 5, column 18: `system.ipus`: expected a multiple of 64 (IPUs of a rack), got 96",
        ),
        (
            "system",
            "ipus = { value = 3",
            "line 5, column 18: `system.ipus`: expected a multiple of 2 (IPUs face each other in \
             pairs), got 3",
        ),
    ] {
        let rest = ", kind = \"assumed\", source = \"test\" }";
        refuse(
            &over_pod16(&format!("[{section}]\n{constant}{rest}")),
            expected,
        );
    }
}

/// Descriptions on the page about machines are machines.
#[test]
fn the_examples_of_the_page_can_be_read() {
    let page = include_str!("../../../docs/machines.md");
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let [links, chip] = blocks[..] else {
        panic!("expected two descriptions, got {}", blocks.len());
    };
    assert_eq!(
        MachineSpec::from_toml(links).unwrap().links.usable.0,
        26.5e9
    );
    let what_if = MachineSpec::from_toml(chip).unwrap();
    assert_eq!(what_if.tile.memory, Bytes(1248 * 1024));
    let (without_region, _) = chip.split_once("[memory]").unwrap();
    refuse(
        without_region,
        "line 8, column 20: `chip.memory`: expected 638976 (bytes of both regions), got 1277952",
    );
}

/// What would take memory or numbers without end in the tables of routes.
#[test]
fn grids_and_loads_have_bounds() {
    let text = |section: &str, constant: &str| {
        format!("name = \"mine\"\nbase = [\"mk2-pod16\"]\n[{section}]\n{constant}")
    };
    let assumed = "kind = \"assumed\", source = \"what if\"";
    for (section, key, value, expected) in [
        (
            "exchange",
            "columns",
            "65536",
            "1024 (far beyond any grid, and few enough for a table of routes), got 65536",
        ),
        (
            "exchange",
            "rows",
            "1025",
            "1024 (far beyond any grid, and few enough for a table of routes), got 1025",
        ),
        (
            "exchange",
            "route_per_row",
            "\"1000001 cycles\"",
            "1000000 cycles, got `1000001 cycles`",
        ),
        (
            "chip",
            "data_path",
            "\"65536 GiB\"",
            "1024 (B that a tile may load in a cycle, far beyond any), got 70368744177664",
        ),
        (
            "memory",
            "exchange_code_per_fragment",
            "\"65536 GiB\"",
            "1048576 (B of each, more than tiles have, and few enough to add up those of a program), \
             got 70368744177664",
        ),
        (
            "chip",
            "amp_units_f16_f16",
            "128",
            "64 (AMP units, far beyond any), got 128",
        ),
    ] {
        let text = text(
            section,
            &format!("{key} = {{ value = {value}, {assumed} }}"),
        );
        let place = format!("line 4, column {}", key.len() + 14);
        refuse(
            &text,
            &format!("{place}: `{section}.{key}`: expected at most {expected}"),
        );
    }
}

#[test]
fn a_range_goes_up_and_a_source_says_something() {
    let clock = |more: &str| {
        format!(
            "name = \"mine\"\nbase = [\"mk2-pod16\"]\n[chip]\nclock = {{ value = \"1.5 GHz\", kind = \"assumed\", {more} }}"
        )
    };
    refuse(
        &clock("source = \"what if\", range = [\"2 GHz\", \"1 GHz\"]"),
        "line 4, column 19: `chip.clock`: expected a range with its lower end first, got `2 GHz` \
         to `1 GHz`",
    );
    refuse(
        &clock("source = \" \""),
        "line 4, column 19: `chip.clock`: expected where the value is from, such as \"what if\", \
         got an empty source",
    );
}

#[test]
fn several_racks_need_gateways() {
    let text = "name = \"mine\"\nbase = [\"mk1-server16\"]\n[system]\n\
        ipus = { value = 32, kind = \"assumed\", source = \"what if\" }";
    refuse(
        text,
        "line 4, column 18: `system.ipus`: expected at most 16 (IPUs of a rack, for want of a \
         [gateway] between racks), got 32",
    );
}

#[test]
fn an_unknown_machine_lists_the_known_ones() {
    let error = MachineSpec::shipped("mk3").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no machine `mk3` is shipped, expected one of mk1-")
    );
}

/// Edits of a description as people make them: other values under known keys, most of them of the
/// right form.
fn edited() -> impl Strategy<Value = String> {
    let machine = machine("mk2-pod128");
    let constants: Vec<(String, String)> = machine
        .constants()
        .map(|constant| (constant.id.to_string(), constant.value.to_string()))
        .collect();
    let number = prop_oneof![
        4 => (1..100_u32).prop_map(|n| n.to_string()),
        2 => (1..100_000_u32).prop_map(|n| n.to_string()),
        1 => (0..u64::MAX).prop_map(|n| n.to_string()),
        1 => (0.0..1e4).prop_map(|n: f64| format!("{n:.3}")),
        1 => "[0-9.eE+-]{0,8}",
    ];
    let unit = prop::sample::select(vec![
        "", " B", " KiB", " cycles", " s", " GHz", " GB/s", " x",
    ]);
    let unit = prop::option::weighted(0.1, unit);
    let edit =
        (prop::sample::select(constants), number, unit).prop_map(|((key, value), number, unit)| {
            let own = value.find(' ').map_or("", |space| &value[space..]);
            match unit.unwrap_or(own) {
                "" => (key, number),
                unit => (key, format!("\"{number}{unit}\"")),
            }
        });
    prop::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text = "name = \"edited\"\nbase = [\"mk2-pod128\"]\n".to_owned();
        let mut last = "";
        let edits: BTreeMap<String, String> = edits.into_iter().collect();
        for (key, value) in &edits {
            let (section, name) = key.split_once('.').unwrap();
            if section != last {
                text += &format!("[{section}]\n");
                last = section;
            }
            let rest = "kind = \"assumed\", source = \"\"";
            text += &format!("{name} = {{ value = {value}, {rest} }}\n");
        }
        text
    })
}

/// Changes of one to three constants of a machine, most of them with the unit they have.
fn changes() -> impl Strategy<Value = Vec<(ConstantId, String)>> {
    let units = prop::sample::select(vec!["B", "KiB", "GB", "cycles", "us", "MHz", "GB/s"]);
    let number = prop_oneof![
        4 => (0..100_u32).prop_map(f64::from),
        2 => (0..100_000_u32).prop_map(f64::from),
        1 => 0.0..1e4,
    ];
    let id = prop::sample::select(ConstantId::ALL.to_vec());
    let unit = prop::option::weighted(0.1, units);
    let change = (id, number, unit).prop_map(|(id, number, unit)| {
        let pod = machine("mk2-pod128");
        let value = match pod.constant(id).unwrap().value {
            Value::Quantity(own) if own.unit == Unit::ONE => number.round().to_string(),
            Value::Quantity(own) => format!("{number} {}", unit.unwrap_or(own.unit.name)),
            Value::Word(_) => ["torus", "ladder", "ring"][number as usize % 3].to_owned(),
        };
        (id, value)
    });
    prop::collection::vec(change, 1..4)
}

/// A shipped description with a piece cut out and another put in.
fn damaged() -> impl Strategy<Value = String> {
    let names = prop::sample::select(shipped::bases());
    (
        names,
        any::<prop::sample::Index>(),
        0..40_usize,
        "\\PC{0,12}",
    )
        .prop_map(|(name, at, length, inserted)| {
            let letters: Vec<char> = shipped::find(name).unwrap().chars().collect();
            let at = at.index(letters.len());
            let end = letters.len().min(at + length);
            let kept = letters[..at].iter().collect::<String>();
            kept + &inserted + &letters[end..].iter().collect::<String>()
        })
}

proptest! {
    /// A change is what a file with the same constants is, machine or error.
    #[test]
    fn a_change_is_a_file(changes in changes()) {
        let changes: BTreeMap<ConstantId, String> = changes.into_iter().collect();
        let mut text = "name = \"mk2-pod128\"\nbase = [\"mk2-pod128\"]\n".to_owned();
        for (id, value) in &changes {
            let value = match value.parse::<u64>() {
                Ok(count) => count.to_string(),
                Err(_) => format!("\"{value}\""),
            };
            text += &format!("{id} = {{ value = {value}, kind = \"assumed\", source = \"what if\" }}\n");
        }
        let values = changes.iter().map(|(id, value)| (*id, value));
        let changed = machine("mk2-pod128").with_all(values, Kind::Assumed, "what if");
        match (changed, MachineSpec::from_toml(&text)) {
            (Ok(changed), Ok(read)) => {
                prop_assert_eq!(MachineSpec::from_toml(&changed.to_toml()), Ok(changed.clone()));
                prop_assert_eq!(changed, read);
            }
            (
                Err(SpecError::Constant { fault: changed }),
                Err(SpecError::Description { fault: read, .. }),
            ) => prop_assert_eq!(changed, read),
            (changed, read) => prop_assert!(false, "{:?}\n{:?}", changed, read),
        }
    }

    /// Whatever it says, a description is a machine or an error; and a machine can be wired,
    /// and written out and read back.
    #[test]
    fn no_text_is_more_than_an_error(text in prop_oneof![edited(), damaged(), "\\PC{0,60}"]) {
        match MachineSpec::from_toml(&text) {
            Ok(machine) => {
                prop_assert_eq!(MachineSpec::from_toml(&machine.to_toml()), Ok(machine.clone()));
                if machine.n_ipus <= 256 {
                    prop_assert_eq!(Topology::new(&machine).n_ipus, machine.n_ipus);
                }
                prop_assert!(machine.memory.stacks(machine.tile.workers) <= machine.tile.memory);
                prop_assert!(machine.n_tiles() >= u64::from(machine.n_ipus));
            }
            Err(SpecError::Description { place, .. }) => {
                prop_assert!(place.line >= 1 && place.column >= 1);
                let lines = text.split('\n').count();
                prop_assert!(place.base.is_some() || place.line <= lines);
            }
            Err(SpecError::Incomplete { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
