//! Tables for people: columns as wide as they need to be.

use std::fmt::Write as _;

/// Rows of cells under a heading; the first column to the left, the others to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading and no rows.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self {
            rows: vec![heading.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row below.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The table, with a line under the heading and no line end at the end.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let written = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
                debug_assert!(written.is_ok(), "writing to a string");
            }
            text += line.trim_end();
            text += "\n";
            if index == 0 {
                let all = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                text += &"─".repeat(all);
                text += "\n";
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as a person says them.
pub fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!(
        "{value:.digits$} {}",
        units.get(unit).copied().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(123), "123");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(12_345.0), "12.3 kB");
        assert_eq!(bytes(123_456_789.0), "123 MB");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["name", "count"]);
        table.row(["a long name".to_owned(), "7".to_owned()]);
        assert_eq!(
            table.render(),
            "name         count\n──────────────────\na long name      7"
        );
    }
}
