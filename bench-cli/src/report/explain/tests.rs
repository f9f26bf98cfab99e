mod page;

use super::*;
use crate::args;
use crate::clock::Date;
use crate::request::prepare;
use crate::run::simulate;

/// Metrics of the run that the words after `ipu-bench bert` ask for.
fn metrics(words: &str) -> Metrics {
    let given = args::parse(words.split_whitespace().map(String::from)).unwrap();
    let prepared = prepare(&given, Date::from_unix(0)).unwrap();
    simulate(&prepared.request).unwrap().metrics
}

/// The cells of a row of a printed table; one for a line of text.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim_matches('|');
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// A printed share in hundredths of a per cent.
fn share(cell: &str) -> u64 {
    let (whole, part) = cell.split_once('.').expect("shares have a point");
    assert_eq!(part.len(), 2, "{cell}");
    100 * whole.parse::<u64>().unwrap() + part.parse::<u64>().unwrap()
}

/// Sums of the columns of a printed table of shares, without its row of sums, which must say the
/// same; none if there is no such table.
fn printed_sums(printed: &str, head: &str) -> Option<Vec<u64>> {
    let mut lines = printed
        .lines()
        .skip_while(|line| cells(line)[0] != head)
        .take_while(|line| !line.is_empty())
        .map(cells);
    let columns = lines.next()?.len() - 1;
    let mut sums = vec![0; columns];
    // Below the head is a line.
    for row in lines.skip(1) {
        let shares: Vec<u64> = row[1..].iter().map(|cell| share(cell)).collect();
        if row[0] == "sum" {
            assert_eq!(shares, sums, "{head}");
            return Some(sums);
        }
        for (sum, share) in sums.iter_mut().zip(shares) {
            *sum += share;
        }
    }
    panic!("the table `{head}` has no row of sums");
}

/// Shares of the step are all of it, and those of what an IPU does all but its waiting.
fn check_printed(printed: &str, n_ipus: usize) {
    let whole = vec![10_000; n_ipus + 1];
    for head in ["cause", "section of the program"] {
        assert_eq!(printed_sums(printed, head).as_ref(), Some(&whole), "{head}");
    }
    let waiting = printed_sums(printed, "waiting").unwrap_or_else(|| vec![0; n_ipus + 1]);
    for head in ["mechanism", "kind of operation", "layer", "pass"] {
        let busy = printed_sums(printed, head).expect("something is done");
        for (busy, waiting) in busy.iter().zip(&waiting) {
            // Where both end in just half a hundredth, both are rounded up.
            let sum = busy + waiting;
            assert!(sum == 10_000 || sum == 10_001, "{head}: {sum}\n{printed}");
        }
    }
}

#[test]
fn printed_shares_sum_to_the_step() {
    let lines = include_str!("../../../../tests/cases/configurations.txt").lines();
    let small = lines.filter(|line| line.contains("--hidden-size 64 "));
    for line in small.take(4) {
        let metrics = metrics(line);
        check_printed(&text(&metrics), metrics.time.ipus.len());
    }
}
