//! Text tables with columns of the necessary width.

use std::fmt::Write as _;
use std::time::Duration;

/// Rows of cells under a heading; the first column is left-aligned, the others right-aligned.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with this heading and no rows.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self {
            rows: vec![heading.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Returns the table, with a line under the heading and no line end at the end.
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

/// A table whose rows are printed one by one: its columns have fixed widths, and those that do not fit are
/// omitted.
#[derive(Clone, Debug)]
pub struct Columns {
    columns: Vec<Column>,
}

/// A column of [`Columns`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub heading: &'static str,
    /// Width of its cells in characters; a longer cell moves those behind it.
    pub width: usize,
    /// If the table is too wide, columns are omitted from the highest rank down; those of rank 0 stay.
    pub rank: u8,
}

impl Columns {
    /// Returns the columns of `all` that fit into lines of `most` characters.
    pub fn fit(all: &[Column], most: usize) -> Self {
        let mut columns = all.to_vec();
        while total(&columns) > most
            && let Some(last) = columns
                .iter()
                .map(|column| column.rank)
                .max()
                .filter(|rank| *rank > 0)
        {
            columns.retain(|column| column.rank < last);
        }
        Self { columns }
    }

    /// Returns the heading and the line under it.
    pub fn heading(&self) -> String {
        let heading = self.line(|column| column.heading.to_owned());
        format!("{heading}\n{}", "─".repeat(total(&self.columns)))
    }

    /// Returns a row, given the cell of each column: the first column is left-aligned, the others
    /// right-aligned.
    pub fn line(&self, cell: impl Fn(&Column) -> String) -> String {
        let mut line = String::new();
        for (index, column) in self.columns.iter().enumerate() {
            let (cell, width) = (cell(column), column.width);
            let written = match index {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
            debug_assert!(written.is_ok(), "writing to a string");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn total(columns: &[Column]) -> usize {
    let widths: usize = columns.iter().map(|column| column.width).sum();
    widths + 2 * columns.len().saturating_sub(1)
}

/// Formats `1234567` as `1,234,567`.
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

/// Formats a duration in up to seven characters below 1,000 seconds.
pub fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..9.995 => format!("{millis:.2} ms"),
        ..99.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..99_950.0 => format!("{:.2} s", millis / 1e3),
        _ => format!("{:.0} s", millis / 1e3),
    }
}

/// Formats a number of bytes.
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
        let times = [0.004, 0.999, 20.64, 877.3, 999.7, 1520.0, 123_456.0];
        let times = times.map(|millis| time(Duration::from_secs_f64(millis / 1e3)));
        assert_eq!(
            times,
            [
                "0.00 ms", "1.00 ms", "20.6 ms", "877 ms", "1.00 s", "1.52 s", "123 s"
            ]
        );
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(12_345.0), "12.3 kB");
        assert_eq!(bytes(123_456_789.0), "123 MB");
    }

    #[test]
    fn columns_that_do_not_fit_are_omitted() {
        let column = |heading, width, rank| Column { heading, width, rank };
        let all = [column("name", 8, 0), column("more", 6, 2), column("count", 6, 1)];
        let shown = |most| {
            let columns = Columns::fit(&all, most);
            let row = columns.line(|column| column.heading.to_uppercase());
            format!("{}\n{row}", columns.heading())
        };
        let line = |most| "─".repeat(most);
        assert_eq!(
            shown(24),
            format!("name        more   count\n{}\nNAME        MORE   COUNT", line(24))
        );
        assert_eq!(
            shown(23),
            format!("name       count\n{}\nNAME       COUNT", line(16))
        );
        assert_eq!(
            shown(1),
            format!("name\n{}\nNAME", line(8)),
            "what is always shown"
        );
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
