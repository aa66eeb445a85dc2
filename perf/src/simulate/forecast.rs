//! The load time of a scenario, its bottleneck, and its sensitivity to each constant.

use super::constants::Constants;
use super::pipeline;
use super::scenario::Scenario;
use super::stages::{Demand, Stage};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The prediction for a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// From the start of the processes to the last byte.
    pub seconds: f64,
    pub model_bytes: f64,
    /// The stage that takes longest alone.
    pub bottleneck: Stage,
    /// The time of each stage alone, as a share of the total; unused stages are left out.
    pub shares: Vec<(Stage, f64)>,
    pub ring_mean_bytes: f64,
    pub chunk_bytes: f64,
}

impl Forecast {
    pub fn of(constants: &Constants, scenario: &Scenario) -> Self {
        let demand = Demand::of(constants, scenario);
        let outcome = pipeline::run(&demand);
        let bounds = demand.bounds();
        // The first of equals: nearer to the source.
        let longest = bounds.iter().fold((Stage::Start, 0.0), |most, &(stage, seconds)| {
            if seconds > most.1 { (stage, seconds) } else { most }
        });
        let shares = bounds
            .into_iter()
            .filter(|&(_, seconds)| seconds > 0.0)
            .map(|(stage, seconds)| (stage, seconds / outcome.seconds))
            .collect();
        Self {
            seconds: outcome.seconds,
            model_bytes: scenario.model_bytes,
            bottleneck: longest.0,
            shares,
            ring_mean_bytes: outcome.slots_mean * demand.chunk_bytes,
            chunk_bytes: demand.chunk_bytes,
        }
    }

    /// The speed of one node: the whole model divided by the time.
    pub fn gb_per_second(&self) -> f64 {
        self.model_bytes / 1e9 / self.seconds
    }
}

/// The effect of doubling one constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Elasticity {
    pub constant: String,
    /// The ratio of the new and the old time, minus 1.
    pub change: f64,
}

/// Doubles each constant in turn. Returns those that change the time by at least 1 %, strongest
/// first.
///
/// # Errors
/// Never for constants of this program.
pub fn elasticities(constants: &Constants, scenario: &Scenario) -> Result<Vec<Elasticity>> {
    let before = Forecast::of(constants, scenario).seconds;
    let mut found = Vec::new();
    for (constant, value) in numbers(constants)? {
        let doubled = with(constants, &constant, value * 2.0)?;
        let change = Forecast::of(&doubled, scenario).seconds / before - 1.0;
        if change.abs() >= 0.01 {
            found.push(Elasticity { constant, change });
        }
    }
    found.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
    Ok(found)
}

/// All numbers among the constants, by their paths.
///
/// # Errors
/// Never for constants of this program.
pub fn numbers(constants: &Constants) -> Result<Vec<(String, f64)>> {
    let Value::Object(parts) = serde_json::to_value(constants)? else { bail!("no parts") };
    let mut all = Vec::new();
    for (part, values) in parts {
        let Value::Object(values) = values else { bail!("{part} has no values") };
        all.extend(values.into_iter().filter_map(|(name, value)| {
            value.as_f64().map(|value| (format!("{part}.{name}"), value))
        }));
    }
    Ok(all)
}

/// The same constants, but one.
///
/// # Errors
/// When there is no such constant, or it is not a number above 0.
pub fn with(constants: &Constants, path: &str, value: f64) -> Result<Constants> {
    let what = || format!("{path} is no constant; `simulate --constants` lists them");
    if !(value.is_finite() && value > 0.0) {
        bail!("{path}={value}: use a number above 0");
    }
    let mut all = serde_json::to_value(constants)?;
    let place = path
        .split_once('.')
        .and_then(|(part, name)| all.get_mut(part)?.get_mut(name))
        .with_context(what)?;
    if place.is_boolean() {
        bail!("{path} is no number");
    }
    *place = Value::from(value);
    serde_json::from_value(all).with_context(what)
}
