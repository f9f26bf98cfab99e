//! `docs/mechanisms.md` gives every mechanism the shares that the program gives it.

use std::collections::BTreeMap;

use expect_test::expect_file;

use super::*;
use crate::report::shares;

/// Columns of shares: their heads, the runs they are of, and the IPU.
const COLUMNS: [(&str, &str, u32); 4] = [
    ("IPU 1", LARGE, 1),
    ("IPU 0", LARGE, 0),
    (
        "SQuAD",
        "--config configs/mk2/squad_large_384_96fef3f.json",
        1,
    ),
    (
        "inference",
        "--config configs/mk2/squad_base_128_inf.json",
        0,
    ),
];

const LARGE: &str = "--config configs/mk2/pretrain_large_128.json";

/// What a column has beside mechanisms.
const WAITING: &str = "waiting";
const RECOMPUTATION: &str = "recomputation";

/// Shares of one IPU as `--explain` prints them, by mechanism, and those of other tables that the
/// page has beside them.
fn shares(run: &str, ipu: u32) -> BTreeMap<String, String> {
    let words = format!("{run} --generated-data true --epochs 1 --no-model-save");
    let metrics = metrics(&words);
    let printed = text(&metrics);
    let table = |head: &str| {
        let lines = printed
            .lines()
            .skip_while(move |line| cells(line)[0] != head);
        let lines = lines.take_while(|line| !line.is_empty()).map(cells);
        lines.collect::<Vec<_>>()
    };
    let column = |rows: &[Vec<String>]| -> BTreeMap<String, String> {
        let is_ipu = |head: &String| head.split(':').next() == Some(&format!("IPU {ipu}"));
        let column = rows[0].iter().position(is_ipu).unwrap();
        let rows = rows.iter().skip(2);
        rows.map(|row| (row[0].clone(), row[column].clone()))
            .collect()
    };
    let mut shares = column(&table("mechanism"));
    let busy = shares.remove("sum").unwrap();
    let waiting = 10_000 - busy.replace('.', "").parse::<u64>().unwrap();
    shares.insert(WAITING.into(), shares::percent(waiting));
    let again = column(&table("pass")).remove("recompute");
    shares.extend(again.map(|share| (RECOMPUTATION.into(), share)));
    // A row of the printed table is there if any IPU has something in it.
    let here = &metrics.time.ipus[ipu as usize].by_mechanism;
    for mechanism in Mechanism::ALL {
        if !here.contains_key(&mechanism) {
            shares.remove(mechanism.name());
        }
    }
    shares
}

/// A row of the page's tables with its shares as they are; the name of the mechanism if it has
/// shares.
fn row(
    line: &str,
    heads: &[String],
    columns: &BTreeMap<&str, BTreeMap<String, String>>,
) -> (String, Option<String>) {
    let mut row = cells(line);
    assert_eq!(row.len(), heads.len(), "{line}");
    let name = row[0].clone();
    let has_shares = columns.values().any(|shares| shares.contains_key(&name));
    for (cell, head) in row.iter_mut().zip(heads) {
        let Some(shares) = columns.get(head.as_str()) else {
            continue;
        };
        *cell = match shares.get(&name) {
            Some(share) => share.clone(),
            None if has_shares => "-".into(),
            None => String::new(),
        };
    }
    let cells: String = row
        .iter()
        .map(|cell| format!(" {cell} |").replace("  |", " |"))
        .collect();
    (format!("|{cells}"), has_shares.then_some(name))
}

#[test]
fn the_page_has_the_shares_of_every_mechanism() {
    let columns = COLUMNS.map(|(head, run, ipu)| (head, shares(run, ipu)));
    let columns = BTreeMap::from(columns);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mechanisms.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (mut expected, mut named) = (String::new(), Vec::new());
    let mut heads: Option<Vec<String>> = None;
    for line in page.lines() {
        let line = match &heads {
            _ if !line.starts_with('|') => {
                heads = None;
                line.to_owned()
            }
            Some(heads) if !line.starts_with("|---") => {
                let (line, name) = row(line, heads, &columns);
                named.extend(name);
                line
            }
            Some(_) => line.to_owned(),
            None => {
                let cells = cells(line);
                if cells[1] == "in the program" {
                    assert_eq!(cells[2..], COLUMNS.map(|(head, ..)| head));
                    heads = Some(cells);
                }
                line.to_owned()
            }
        };
        expected += &line;
        expected.push('\n');
    }
    let all = Mechanism::ALL
        .into_iter()
        .filter(|&mechanism| mechanism != Mechanism::Other);
    let all = all.map(Mechanism::name).chain([WAITING, RECOMPUTATION]);
    let mut all: Vec<&str> = all.collect();
    all.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, all, "every mechanism has one row");
    expect_file![path].assert_eq(&expected);
}
