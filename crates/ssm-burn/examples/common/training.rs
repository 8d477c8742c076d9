//! burn's training loop around the model: dashboard, metrics, checkpoints, resume.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoaderBuilder, Dataset};
use burn::data::dataset::DatasetError;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::AdamWConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};

use super::model::TokenModel;
use super::tasks::{Example, Task, UNSEEN};

/// Tokens (B, L) and the labels (B, n) of the last n steps.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) tokens: Tensor<2, Int>,
    pub(crate) labels: Tensor<2, Int>,
}

/// Puts examples of one length together.
#[derive(Clone, Debug)]
pub(crate) struct Together;

impl Batcher<Example, Batch> for Together {
    fn batch(&self, items: Vec<Example>, device: &Device) -> Batch {
        let rows = items.len();
        let together = |part: fn(Example) -> Vec<i64>| {
            let all: Vec<i64> = items.iter().cloned().flat_map(part).collect();
            let width = all.len() / rows.max(1);
            Tensor::from_data(TensorData::new(all, [rows, width]), device)
        };
        Batch { tokens: together(|e| e.tokens), labels: together(|e| e.labels) }
    }
}

impl TokenModel {
    pub(crate) fn classify(&self, batch: Batch) -> ClassificationOutput {
        let [rows, n] = batch.labels.dims();
        let logits = self.last(batch.tokens, n).expect("a batch of the model's own making");
        let logits = logits.reshape([(rows * n) as i32, -1]);
        let labels = batch.labels.reshape([rows * n]);
        let loss =
            CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), labels.clone());
        ClassificationOutput::new(loss, logits, labels)
    }
}

impl TrainStep for TokenModel {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for TokenModel {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// Part of a task's endless supply.
struct Supply {
    task: Arc<dyn Task>,
    first: u64,
    count: usize,
}

impl Dataset<Example> for Supply {
    fn get(&self, index: usize) -> Result<Example, DatasetError> {
        Ok(self.task.example(self.first + index as u64))
    }

    fn len(&self) -> usize {
        self.count
    }
}

/// How long and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) epochs: usize,
    pub(crate) batches: usize,
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    /// Goes on after this epoch's checkpoint.
    pub(crate) resume: Option<usize>,
}

/// Trains, and returns the trained model. Checkpoints and metrics go to `folder`.
pub(crate) fn train(model: TokenModel, task: Arc<dyn Task>, plan: Plan, folder: &Path) -> TokenModel {
    let loader = |first: u64, count: usize| {
        let supply = Supply { task: task.clone(), first, count };
        DataLoaderBuilder::new(Together).batch_size(plan.batch).num_workers(1).build(supply)
    };
    let training =
        SupervisedTraining::new(folder, loader(0, plan.batches * plan.batch), loader(UNSEEN, 8 * plan.batch))
            .metrics((AccuracyMetric::new(), LossMetric::new()))
            .with_default_checkpointers()
            .num_epochs(plan.epochs)
            .summary();
    let training = match plan.resume {
        Some(epoch) => training.checkpoint(epoch),
        None => training,
    };
    training.launch(Learner::new(model, AdamWConfig::new().init(), plan.learning_rate)).model
}

/// The share of right answers over unseen examples.
pub(crate) fn accuracy(model: &TokenModel, task: &dyn Task, batches: usize, batch: usize) -> f64 {
    mean(model, task, batches, batch, |out| {
        out.output.argmax(1).reshape([-1]).equal(out.targets).float().mean().into_scalar::<f64>()
    })
}

/// Nats an answer over unseen examples.
pub(crate) fn loss(model: &TokenModel, task: &dyn Task, batches: usize, batch: usize) -> f64 {
    mean(model, task, batches, batch, |out| out.loss.into_scalar::<f64>())
}

fn mean(
    model: &TokenModel,
    task: &dyn Task,
    batches: usize,
    batch: usize,
    of: fn(ClassificationOutput) -> f64,
) -> f64 {
    let device = model.head.weight.device();
    let one = |i: usize| {
        let first = UNSEEN + (1 << 20) + (i * batch) as u64;
        let items = (first..first + batch as u64).map(|index| task.example(index)).collect();
        of(model.classify(Together.batch(items, &device)))
    };
    (0..batches).map(one).sum::<f64>() / batches as f64
}
