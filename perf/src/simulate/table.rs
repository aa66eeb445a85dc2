//! Tables and numbers as text.

/// Formats rows as a Markdown table with aligned columns.
pub fn markdown(head: &[&str], lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).chain([head[column].chars().count(), 3]).max()
    };
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or(3)).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let padded = std::iter::zip(cells, &widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&mut head.iter().map(|&cell| cell.to_owned()));
    text += &line(&mut widths.iter().map(|&width| "-".repeat(width)));
    for cells in lines {
        text += &line(&mut cells.iter().cloned());
    }
    text
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.001 => format!("{value:.6}"),
        ..0.1 => format!("{value:.4}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        f64::INFINITY => "none".to_owned(),
        _ => format!("{value:.0}"),
    }
}

/// A time in a suitable unit.
pub fn time(seconds: f64) -> String {
    match seconds {
        ..600.0 => format!("{} s", number(seconds)),
        ..7200.0 => format!("{} min", number(seconds / 60.0)),
        _ => format!("{} h", number(seconds / 3600.0)),
    }
}
