//! Tables for the terminal and for Markdown.

use super::check::{Checked, typical_error};
use super::forecast::{Elasticity, Forecast};

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

pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A forecast, its stages, and its sensitivity.
pub fn forecast(forecast: &Forecast, elasticities: &[Elasticity]) -> String {
    let stages = forecast.shares.iter().map(|&(stage, share)| {
        vec![stage.name().to_owned(), time(share * forecast.seconds), percent(share)]
    });
    let moves = elasticities
        .iter()
        .map(|one| vec![one.constant.clone(), format!("{:+.0} %", one.change * 100.0)]);
    format!(
        "{}, {} GB/s a node; limited by: {}\nring in use: {:.0} MiB a process, in reads of {:.2} MiB\n\n{}\n{}",
        time(forecast.seconds),
        number(forecast.gb_per_second()),
        forecast.bottleneck.name(),
        forecast.ring_mean_bytes / 1_048_576.0,
        forecast.chunk_bytes / 1_048_576.0,
        markdown(&["stage", "needs by itself", "of the time"], &stages.collect::<Vec<_>>()),
        markdown(&["doubled", "time"], &moves.collect::<Vec<_>>()),
    )
}

/// Predicted and measured times.
pub fn checked(all: &[Checked]) -> String {
    let lines = all.iter().map(|one| {
        vec![
            format!("{} {}", one.scenario, one.case),
            one.client.clone(),
            number(one.measured_seconds),
            number(one.predicted_seconds),
            format!("{:+.0} %", one.relative_error() * 100.0),
            one.bottleneck.name().to_owned(),
        ]
    });
    let head = ["case", "client", "measured, s", "predicted, s", "error", "limited by"];
    let table = markdown(&head, &lines.collect::<Vec<_>>());
    match typical_error(all) {
        Some(error) => format!("{table}\nMedian error, without its sign: {}.\n", percent(error)),
        None => "No case of the records can be predicted.\n".to_owned(),
    }
}
