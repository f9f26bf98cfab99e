//! The command as people see it: console text that doubles as documentation.

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd/*.trycmd");

/// Pages of the documentation whose console blocks are run.
const PAGES: [&str; 6] = [
    "data",
    "driver",
    "machines",
    "mechanisms",
    "outputs",
    "planner",
];

#[test]
fn console() {
    // Commands of pages leave their folders here, not in the repository.
    std::env::set_current_dir(env!("CARGO_TARGET_TMPDIR")).expect("cargo made it for this test");
    let cases = trycmd::TestCases::new();
    cases.case(CASES);
    for page in PAGES {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
        cases.case(format!("{docs}/{page}.md"));
    }
}
