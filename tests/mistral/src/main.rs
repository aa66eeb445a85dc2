//! Generates greedy text on the CPU with mistralrs-core, with or without the patch of docs/candle.md.
//!
//! `patched-mistral DIRECTORY` (or `own-mistral`) writes a tiny random Llama to the directory, if there is
//! none, loads it and continues a prompt. It prints the log of mistral.rs, the text, and each token with
//! the bits of its logit. tests/mistral.sh makes packages of this file and compares what they print.

mod checkpoint;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use mistralrs_core::{
    DefaultSchedulerMethod, DeviceMapSetting, MistralRsBuilder, ModelDType, NormalLoaderBuilder,
    NormalLoaderType, NormalRequest, NormalSpecificConfig, Request, RequestMessage, Response,
    SamplingParams, SchedulerConfig, TokenSource, initialize_logging,
};
use std::path::Path;

const TOKENS: usize = 24;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::args().nth(1).context("the argument is missing: a directory")?;
    if !Path::new(&directory).exists() {
        std::fs::create_dir_all(&directory)?;
        checkpoint::write(Path::new(&directory))?;
    }
    initialize_logging();
    let loader = NormalLoaderBuilder::new(
        NormalSpecificConfig::default(),
        None,
        None,
        Some(directory),
        false,
        None,
    )
    .build(Some(NormalLoaderType::Llama))?;
    let pipeline = loader.load_model_from_hf(
        None,
        TokenSource::None,
        &ModelDType::F32,
        &Device::Cpu,
        false,
        DeviceMapSetting::dummy(),
        None,
        None,
    )?;
    let method = DefaultSchedulerMethod::Fixed(1.try_into()?);
    let scheduler = SchedulerConfig::DefaultScheduler { method };
    let mistral =
        MistralRsBuilder::new(pipeline, scheduler, false, None).with_disable_eos_stop(true);
    let mistral = mistral.build().await;

    let (sender, mut responses) = tokio::sync::mpsc::channel(1);
    let mut sampling = SamplingParams::deterministic();
    sampling.max_len = Some(TOKENS);
    sampling.top_n_logprobs = 1;
    let message = RequestMessage::Completion {
        text: "once upon a time".to_owned(),
        echo_prompt: false,
        best_of: None,
    };
    let mut request = NormalRequest::new_simple(message, sampling, sender, 0, None, None);
    request.return_logprobs = true;
    mistral.get_sender(None)?.send(Request::Normal(Box::new(request))).await?;
    let response = match responses.recv().await.context("no response")? {
        Response::CompletionDone(response) => response,
        Response::InternalError(error) | Response::ValidationError(error) => bail!("{error}"),
        Response::CompletionModelError(error, _) => bail!("{error}"),
        _ => bail!("a response of another kind"),
    };
    let choice = response.choices.first().context("no choice")?;
    println!("text: {:?}", choice.text);
    let logits = choice.logprobs.as_ref().and_then(|it| it.content.as_ref());
    let logits = logits.context("no logits")?;
    for token in logits {
        let top = token.top_logprobs.first().context("no token")?;
        println!("token: {} {:?} {:08x}", top.token, token.token, token.logprob.to_bits());
    }
    anyhow::ensure!(logits.len() == TOKENS, "{} tokens", logits.len());
    Ok(())
}
