//! Aligned columns. Cells are cleaned of control characters, because labels come from other processes and must not
//! drive the reader's terminal.

#![forbid(unsafe_code)]

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// Rows of cells under named columns.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The table as lines, each ended by a newline, without trailing spaces.
    pub(crate) fn render(&self) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_string()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            self.render_row(row, &widths, &mut text);
        }
        text
    }

    fn render_row(&self, row: &[String], widths: &[usize], text: &mut String) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
                Align::Right => {
                    line.push_str(&padding);
                    line.push_str(cell);
                }
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// `text` with every control character replaced, so that it stays on its line and in its cell.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("id", Align::Right), ("label", Align::Left)]);
        table.row(vec!["1".into(), "bytes sent".into()]);
        table.row(vec!["100".into(), "x".into()]);
        assert_eq!(table.render(), " id  label\n  1  bytes sent\n100  x\n");
    }

    #[test]
    fn a_hostile_label_can_not_drive_the_terminal() {
        let mut table = Table::new(&[("label", Align::Left)]);
        table.row(vec!["\u{1b}[2Jgone\nnext".into()]);
        let text = table.render();
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 2);
    }
}
