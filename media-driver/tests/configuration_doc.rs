//! `docs/configuration.md` lists every setting as the driver knows it: its table is compared row by row with the table
//! of settings.

use fulmar_media_driver::config::{DriverSettings, Row};

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

const HEADING: [&str; 2] = [
    "| Property | Environment | Default | Unit | Values | Meaning |",
    "| --- | --- | --- | --- | --- | --- |",
];

fn line(row: &Row) -> String {
    let default = match (row.key, row.default.as_str()) {
        ("aeron.dir", _) => "`/dev/shm/aeron-<user>`".to_owned(),
        (_, "") => "empty".to_owned(),
        (_, text) => format!("`{text}`"),
    };
    format!(
        "| `{}` | `{}` | {default} | {} | {} | {} |",
        row.key, row.env_name, row.unit, row.bounds, row.doc
    )
    .replace(
        "`rate=0.1|seed=1234|recv-msg-mask=0xF`",
        "`rate=0.1\\|seed=1234\\|recv-msg-mask=0xF`",
    )
}

#[test]
fn the_document_lists_every_setting_as_the_driver_knows_it() {
    let rows = DriverSettings::defaults().explain();
    let expected: Vec<String> = HEADING
        .iter()
        .map(|line| (*line).to_owned())
        .chain(rows.iter().map(line))
        .collect();
    let listed: Vec<&str> = DOCUMENT
        .lines()
        .skip_while(|line| *line != "## All settings")
        .filter(|line| line.starts_with('|'))
        .collect();
    assert_eq!(
        listed,
        expected,
        "the table should read:\n{}\n",
        expected.join("\n")
    );
}

#[test]
fn the_prose_names_only_settings_that_exist() {
    let rows = DriverSettings::defaults().explain();
    let prose = DOCUMENT.split("## All settings").next().unwrap_or_default();
    let names = prose
        .split(|c: char| !(c.is_ascii_lowercase() || c == '.' || c == '_' || c == '*'))
        .filter(|word| word.starts_with("aeron.") && !word.contains('*'));
    let mut count = 0;
    for name in names {
        assert!(rows.iter().any(|row| row.key == name), "{name} is no setting");
        count += 1;
    }
    assert!(count > 10);
}
