//! Numbers and tables for Markdown documents.

/// A table with columns as wide as their widest cell. Each row has as many cells as `head`.
pub fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines = vec![head.iter().map(|cell| escaped(cell)).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).fold(3, usize::max)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    lines.insert(1, widths.iter().map(|&width| "-".repeat(width)).collect());
    let line = |cells: &Vec<String>| {
        let cells = std::iter::zip(cells, &widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    lines.iter().map(line).collect()
}

/// A vertical bar would begin another cell.
fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|")
}

/// A number with three significant digits, and at most six after the point.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().max(1e-4).log10().floor();
    let digits = (2.0 - magnitude).max(0.0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a|b", "1"], ["c", "12345"]].map(|row| row.map(str::to_owned).to_vec());
        let wanted = "| name | n     |\n| ---- | ----- |\n| a\\|b | 1     |\n| c    | 12345 |\n";
        assert_eq!(markdown(&["name", "n"], &rows), wanted);
    }

    #[test]
    fn three_digits_count() {
        let numbers = [1234.5, 99.96, 12.345, 1.0, 0.5, 0.0123, 0.000_042, 0.0, -2.0];
        let texts = ["1234", "100.0", "12.3", "1.00", "0.500", "0.0123", "0.000042", "0", "-2.00"];
        assert_eq!(numbers.map(number), texts);
        assert_eq!(number(f64::INFINITY), "inf");
    }
}
