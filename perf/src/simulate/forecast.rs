//! The predicted time of a load, and the stage that limits it.

use super::constants::Constants;
use super::load::Load;
use super::pipeline;
use super::stages::{Demand, Stage};

/// The prediction for a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// From the start of the processes to the last byte.
    pub seconds: f64,
    /// The speed of one node: the whole model divided by the time.
    pub gb_per_second: f64,
    /// The stage that takes longest alone.
    pub bottleneck: Stage,
    /// The seconds of each stage alone; unused stages are left out.
    pub stages: Vec<(Stage, f64)>,
}

impl Forecast {
    pub fn of(constants: &Constants, load: &Load) -> Self {
        let demand = Demand::of(constants, load);
        let seconds = pipeline::run(&demand).seconds;
        let mut stages = demand.bounds();
        stages.retain(|&(_, seconds)| seconds > 0.0);
        // The first of equals: nearer to the source.
        let longest = stages.iter().copied().reduce(|most, stage| match stage.1 > most.1 {
            true => stage,
            false => most,
        });
        let bottleneck = longest.map_or("start", |(stage, _)| stage);
        let gb_per_second = load.model_bytes / 1e9 / seconds;
        Self { seconds, gb_per_second, bottleneck, stages }
    }
}
