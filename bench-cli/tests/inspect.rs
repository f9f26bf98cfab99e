//! What a run leaves for those who watch the compiler.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use ipu_sim::weigh::{Category, LiveKind, UNMODELLED_CATEGORIES};
use popart_graph::text;
use serde_json::Value;

/// Two layers on two IPUs, trained in a pipeline.
const SMALL: &str = "--task PRETRAINING --generated-data true --epochs 1 --no-model-save \
    --no-validation --num-layers 2 --layers-per-ipu 1 1 --encoder-start-ipu 0 --hidden-size 64 \
    --attention-heads 1 --sequence-length 32 --mask-tokens 4 --vocab-length 512 --dtype FLOAT16 \
    --execution-mode PIPELINE --gradient-accumulation-factor 8 --optimizer LAMB";

fn run(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipu-bench"))
        .arg("bert")
        .args(SMALL.split_whitespace())
        .args(more)
        .current_dir(folder)
        .output()
        .expect("the command was built for this test")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn graphs_parse_back_and_reruns_write_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let dump = |name: &str| {
        let program = format!("{name}.txt");
        let output = run(
            folder.path(),
            &["--dump-ir", name, "--dump-program", &program],
        );
        assert!(output.status.success(), "{}", stderr(&output));
        let mut files: Vec<_> = fs::read_dir(folder.path().join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let graphs: Vec<(String, String)> = files
            .iter()
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        (
            graphs,
            fs::read_to_string(folder.path().join(program)).unwrap(),
        )
    };
    let (graphs, program) = dump("one");
    assert_eq!((graphs.clone(), program.clone()), dump("two"));
    let names: Vec<&str> = graphs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "00-model.ir");
    assert!(
        names.contains(&"02-differentiate.ir") && names.last().unwrap().ends_with("outline.ir")
    );
    for (name, graph) in &graphs {
        let parsed = text::parse(graph).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&text::print(&parsed), graph, "{name}");
    }
    assert!(program.starts_with("program of 2 IPUs in 1 replicas"));
    assert!(program.contains("matmul Layer1/FF/2"));
    the_program_goes_by_names(&program);
}

/// A dump's lines, each with what stands left of its `:` or `=`: what it is about.
fn about(graph: &str) -> Vec<(&str, &str)> {
    let about = |line| str::split(line, [':', '=']).next().unwrap_or(line);
    graph.lines().map(|line| (about(line), line)).collect()
}

/// Whether `some` are among `all`, in this order.
fn in_order<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    let mut all = all.iter();
    some.iter().all(|wanted| all.any(|found| found == wanted))
}

/// A line with nothing between the parentheses of its operands, nor behind an update's `=`.
fn without_operands(line: &str) -> String {
    match (line.split_once(" = "), line.starts_with("update")) {
        (Some((update, _)), true) => update.to_owned(),
        (Some((result, operation)), false) if result.starts_with('%') => {
            let (kind, rest) = operation.split_once('(').unwrap_or((operation, ""));
            let (_, rest) = rest.split_once(')').unwrap_or(("", rest));
            format!("{result} = {kind}{rest}")
        }
        _ => line.to_owned(),
    }
}

/// What two dumps in a row differ in is what the pass between them did.
#[test]
fn dumps_in_a_row_differ_in_what_the_pass_did() {
    let folder = tempfile::tempdir().unwrap();
    let two = "--layers-per-ipu 2 2 --num-layers 4 --replication-factor 2 \
        --replicated-tensor-sharding true --optimizer-state-offchip true --merge-collectives \
        --split-linear-layers true --embedding-serialization-vocab-steps 2";
    let more: Vec<&str> = two
        .split_whitespace()
        .chain(["--dump-ir", "graphs"])
        .collect();
    let output = run(folder.path(), &more);
    assert!(output.status.success(), "{}", stderr(&output));
    let folder = fs::read_dir(folder.path().join("graphs")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut n_seen = 0;
    for (file, pair) in files[1..].iter().zip(texts.windows(2)) {
        let name = file.file_stem().unwrap().to_string_lossy();
        let [before, after] = [&pair[0], &pair[1]].map(|text| about(text));
        // What is in both stands in the same order, so that `diff` doesn't show it.
        let of_before: std::collections::BTreeSet<&str> =
            before.iter().map(|(about, _)| *about).collect();
        let kept: Vec<(&str, &str)> = after
            .iter()
            .filter(|(about, _)| of_before.contains(about))
            .copied()
            .collect();
        let [kept_about, before_about] =
            [&kept, &before].map(|lines| lines.iter().map(|(about, _)| *about).collect::<Vec<_>>());
        // Only a merged collective must wait for what was written down later.
        if !name.ends_with("merge_collectives") {
            assert!(in_order(&kept_about, &before_about), "{name}");
        }
        let pass = name.split_once('-').unwrap().1;
        match pass {
            "prune" => {
                // Results of forward operations that went.
                let is_left = |(about, _): &&(&str, &str)| !about.starts_with("activation");
                let left: Vec<_> = after.iter().filter(is_left).copied().collect();
                assert!(
                    before.len() > left.len() && in_order(&left, &before),
                    "{name}"
                );
                n_seen += 1;
            }
            "inter_ipu_copies" | "stash" | "outline" => {
                let masked = |lines: &[(&str, &str)]| -> Vec<String> {
                    lines
                        .iter()
                        .map(|(_, line)| without_operands(line))
                        .collect()
                };
                assert!(
                    after.len() > before.len() && masked(&kept) == masked(&before),
                    "{name}"
                );
                n_seen += 1;
            }
            _ => {}
        }
    }
    assert_eq!(n_seen, 4);
}

/// Uses behind definitions: a dump reads from top to bottom.
#[test]
fn a_dump_has_no_operation_before_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--dump-ir", "graphs"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for entry in fs::read_dir(folder.path().join("graphs")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut defined = std::collections::BTreeSet::new();
        for line in text.lines() {
            let words = |text: &str| -> Vec<String> {
                let words = text.split(|character: char| !"%0123456789".contains(character));
                let words = words.filter(|word| word.starts_with('%'));
                words.map(str::to_owned).collect()
            };
            let (left, right) = line.split_once(" = ").unwrap_or((line, ""));
            if line.starts_with('%') {
                let operands = right.split_once(')').unwrap().0;
                assert!(
                    words(operands).iter().all(|id| defined.contains(id)),
                    "{line}"
                );
            }
            defined.extend(words(left));
        }
    }
}

/// Every variable is declared once on its IPU, with its operation, and no step has a number for it.
fn the_program_goes_by_names(program: &str) {
    let declared = program.lines().skip(1).filter_map(|line| {
        let (name, rest) = line.split_once(": ")?;
        let (ipu, _) = rest.split_once(" on IPU ")?.1.split_once(", ")?;
        (!line.starts_with(' ')).then_some((ipu, name))
    });
    let declared: Vec<_> = declared.collect();
    let distinct: std::collections::BTreeSet<_> = declared.iter().collect();
    assert!(declared.len() > 100 && distinct.len() == declared.len());
    assert!(distinct.contains(&("1", "Layer1/FF/1/W")));
    assert!(distinct.contains(&("1", "Layer1/FF/1/operand:matmul")));
    for word in [
        "operand",
        "arrived",
        "broadcast",
        "partials",
        "gathered",
        "slot",
    ] {
        let bare = |name: &str| name.split([':', '.']).next() == Some(word);
        assert!(!distinct.iter().any(|(_, name)| bare(name)), "{word}");
    }
    let gradient = "Layer1/FF/Norm:layer_norm_grad.2[0 1] = ";
    assert!(program.contains(gradient));
}

#[test]
fn merged_collectives_show_in_graph_program_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let of = |name: &str, more: &[&str]| {
        let (program, metrics) = (format!("{name}.txt"), format!("{name}.json"));
        let replicas = ["--replication-factor", "2"];
        let files = ["--dump-program", &program, "--metrics-json", &metrics];
        let output = run(folder.path(), &[&replicas, more, &files].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_str(&read(&metrics)).unwrap();
        let is_sum = |line: &&str| line.trim_start().starts_with("AllReduce");
        let program = read(&program);
        (report, program.lines().filter(is_sum).count())
    };
    let (apart, sums_apart) = of("apart", &[]);
    let more = ["--merge-collectives", "--dump-ir", "graphs"];
    let (merged, sums_merged) = of("merged", &more);
    assert_eq!(apart["options"]["merge_collectives"], Value::Null);
    assert_eq!(merged["options"]["merge_collectives"], true);
    assert!(merged["step_cycles"].as_u64() < apart["step_cycles"].as_u64());
    // Gradients of all weights at once.
    assert!(sums_apart > 20, "{sums_apart}");
    assert_eq!(sums_merged, 1);
    let graph = fs::read_dir(folder.path().join("graphs")).unwrap();
    let mut graph = graph.filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        name.ends_with("-merge_collectives.ir").then_some(path)
    });
    let graph = fs::read_to_string(graph.next().unwrap()).unwrap();
    assert_eq!(graph.matches("= multi_all_reduce(").count(), 1);
    assert_eq!(graph.matches("= all_reduce(").count(), 0);
    // One replica has nobody to sum with.
    let output = run(folder.path(), &["--merge-collectives"]);
    let note = "--merge-collectives has no effect: one replica has nobody to sum with";
    assert!(stderr(&output).contains(note), "{}", stderr(&output));
}

#[test]
fn graphs_of_an_earlier_run_make_way_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = folder.path().join("graphs");
    fs::create_dir_all(graphs.join("98-folder.ir")).unwrap();
    let kept = [
        "1-a.ir",
        "100-a.ir",
        "99-.ir",
        "99-notes.txt",
        "a9-b.ir",
        "99_c.ir",
        "note.ir",
    ];
    for name in kept.iter().chain(&["12-outline.ir", "99-stale.ir"]) {
        fs::write(graphs.join(name), "old").unwrap();
    }
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&graphs).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    let run_again = |more: &[&str]| {
        let more = [&["--dump-ir", "graphs"], more].concat();
        let output = run(folder.path(), &more);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run_again(&[]);
    let trained = names();
    assert!(trained.contains(&"00-model.ir".into()) && !trained.contains(&"99-stale.ir".into()));
    // Fewer passes than before.
    run_again(&[
        "--inference",
        "--gradient-accumulation-factor",
        "1",
        "--batches-per-step",
        "8",
    ]);
    let inferred = names();
    let left = |name: &&String| !kept.contains(&name.as_str()) && *name != "98-folder.ir";
    let written: Vec<&String> = inferred.iter().filter(left).collect();
    assert!(
        written.len() > 2 && inferred.len() < trained.len(),
        "{inferred:?}"
    );
    for name in &written {
        let text = fs::read_to_string(graphs.join(name)).unwrap();
        assert!(
            !text.contains("differentiate") && !text.contains("lamb"),
            "{name}"
        );
        let number: usize = name[..2].parse().unwrap();
        assert!(number < written.len(), "{name} of {}", written.len());
    }
    for name in kept {
        assert_eq!(fs::read_to_string(graphs.join(name)).unwrap(), "old");
    }
    assert!(graphs.join("98-folder.ir").is_dir());
}

#[test]
fn the_memory_report_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["memory.json", "memory.csv"] {
        let output = run(folder.path(), &["--memory-report", file]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let text = fs::read_to_string(folder.path().join("memory.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let bytes = |value: &Value| value.as_u64().unwrap();
    for ipu in report["ipus"].as_array().unwrap() {
        let tiles = ipu["tiles"].as_array().unwrap();
        let categories = ipu["categories"].as_array().unwrap();
        for (tile, total) in tiles.iter().enumerate() {
            let parts = categories
                .iter()
                .map(|category| bytes(&category["tiles"][tile]));
            assert_eq!(parts.sum::<u64>(), bytes(total), "tile {tile}");
            let [lasting, passing] =
                ["always_live", "not_always_live"].map(|of| bytes(&ipu[of][tile]));
            assert_eq!(lasting + passing, bytes(total), "tile {tile}");
        }
        // The curve's highest point is what the fullest tile has of passing variables.
        let tile = bytes(&ipu["max_tile"]) as usize;
        let live = ipu["live"].as_array().unwrap();
        let highest = live
            .iter()
            .max_by_key(|point| bytes(&point["max_tile_bytes"]))
            .unwrap();
        let passing = bytes(&ipu["not_always_live"][tile]);
        assert_eq!(bytes(&highest["max_tile_bytes"]), passing);
        for point in live {
            for of in ["ipu_bytes", "max_tile_bytes"] {
                let kinds = point[format!("{of}_by_kind")].as_object().unwrap();
                assert_eq!(kinds.values().map(bytes).sum::<u64>(), bytes(&point[of]));
            }
        }
        the_fullest_tile_is_known_by_kind(ipu, live, tile);
    }
    let table = fs::read_to_string(folder.path().join("memory.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 2 * 1472);
    assert!(table.starts_with("ipu,tile,bytes,always_live,always_live.weight,"));
    the_files_beside_say_the_same(folder.path(), &report);
}

/// The page about memory has a row for every category, and the reason for every other one.
#[test]
fn the_page_about_memory_is_complete() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/memory.md");
    let page = fs::read_to_string(page).unwrap();
    let mut rows = 0;
    for category in Category::all() {
        let row = format!(
            "| `{}` | {} |",
            category.name(),
            category.poplar().unwrap_or("none")
        );
        assert_eq!(page.matches(&row).count(), 1, "{row}");
        rows += 1;
    }
    for category in UNMODELLED_CATEGORIES {
        let row = format!("| {} | {} |", category.poplar, category.reason);
        assert_eq!(page.matches(&row).count(), 1, "{row}");
        rows += 1;
    }
    let found = page.lines().filter(|line| line.starts_with('|'));
    let headers = 2 * page.matches("| --- |\n").count();
    assert_eq!(found.count(), rows + headers);
}

/// The categories of the fullest tile are the kinds of one of the curve's highest points, and of
/// those that a training step in a pipeline must have, none is empty.
fn the_fullest_tile_is_known_by_kind(ipu: &Value, live: &[Value], tile: usize) {
    let categories = ipu["categories"].as_array().expect("a list");
    let mut on_tile = serde_json::Map::new();
    for category in categories {
        let name = category["category"].as_str().expect("a name");
        let bytes = &category["tiles"][tile];
        if let Some(kind) = name.strip_prefix("not_always_live.")
            && *bytes != 0
        {
            on_tile.insert(kind.into(), bytes.clone());
        }
    }
    let highest = ipu["not_always_live"][tile].as_u64();
    let mut highest_points = live
        .iter()
        .filter(|point| point["max_tile_bytes"].as_u64() == highest);
    let is_same = |point: &Value| point["max_tile_bytes_by_kind"] == Value::Object(on_tile.clone());
    assert!(highest_points.any(is_same), "{on_tile:?}");
    let total = |name: &str| -> u64 {
        let found = categories.iter().find(|found| found["category"] == name);
        let tiles = found.and_then(|found| found["tiles"].as_array());
        let tiles = tiles.expect("every category is in the report").iter();
        tiles.filter_map(Value::as_u64).sum()
    };
    for name in [
        "vertex_instance_state",
        "vertex_field_data",
        "copy_descriptor",
        "internal_exchange_code",
        "global_exchange_code",
        "global_exchange_packet_header",
        "not_always_live.variable",
    ] {
        assert!(total(name) > 0, "{name}");
    }
    // Tokens come to the first IPU only.
    for name in ["host_exchange_code", "host_exchange_packet_header"] {
        assert_eq!(total(name) > 0, ipu["ipu"] == 0, "{name}");
    }
}

/// Rows of `memory.curve.csv` and `memory.largest.csv` are those of the JSON report.
fn the_files_beside_say_the_same(folder: &Path, report: &Value) {
    let rows = |file: &str| -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_path(folder.join(file)).expect("it was written");
        let record = |record: csv::Result<csv::StringRecord>| {
            record
                .expect("rows are alike")
                .iter()
                .map(String::from)
                .collect()
        };
        reader.records().map(record).collect()
    };
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), String::from)
    };
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let (mut curve, mut largest) = (Vec::new(), Vec::new());
    for ipu in list(&report["ipus"]) {
        let front = || [text(&ipu["ipu"]), text(&ipu["max_tile"])];
        for (number, point) in list(&ipu["live"]).iter().enumerate() {
            let bytes = ["ipu_bytes", "max_tile_bytes"].map(|of| text(&point[of]));
            let more = [number.to_string(), text(&point["step"])];
            let kinds = ["ipu_bytes_by_kind", "max_tile_bytes_by_kind"];
            let kinds = kinds.iter().flat_map(|of| {
                let bytes = |kind: LiveKind| point[of].get(kind.name()).map_or("0".into(), text);
                LiveKind::ALL.map(bytes)
            });
            let front = [front(), more, bytes].concat().into_iter();
            curve.push(front.chain(kinds).collect::<Vec<String>>());
        }
        for variable in list(&ipu["largest"]) {
            let more = ["name", "category", "bytes", "always_live"].map(|of| text(&variable[of]));
            largest.push([front().as_slice(), &more].concat());
        }
    }
    let steps_joined = |mut row: Vec<String>| {
        let function = row.remove(4);
        if !function.is_empty() {
            row[3] += &format!(" in {function}");
        }
        row
    };
    let found: Vec<_> = rows("memory.curve.csv")
        .into_iter()
        .map(steps_joined)
        .collect();
    assert!(found.len() > 100);
    assert_eq!(found, curve);
    assert_eq!(rows("memory.largest.csv"), largest);
}

#[test]
fn what_cannot_be_written_ends_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::create_dir(folder.path().join("taken.curve.csv")).unwrap();
    for (more, expected) in [
        (
            ["--memory-report", "memory.txt"],
            "a file name that ends in .json or .csv",
        ),
        (["--memory-report", "none/memory.csv"], "none/memory.csv"),
        (["--dump-ir", "file"], "file"),
        (["--dump-program", "none/program.txt"], "none/program.txt"),
        (["--memory-report", "taken.csv"], "taken.curve.csv"),
    ] {
        let output = run(folder.path(), &more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(
            output.stdout.is_empty() && stderr(&output).contains(expected),
            "{more:?}: {}",
            stderr(&output)
        );
    }
}
