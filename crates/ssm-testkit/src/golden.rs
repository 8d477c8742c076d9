//! The golden vectors: inputs in float32 and float64 results of a plain loop under automatic differentiation.
//!
//! They lie beside this crate's manifest; `SSM_GOLDEN_DIR` names another folder, for other vectors or for a binary that
//! was carried to another machine. A folder that is missing or empty is an error, not a pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use ssm_core::{DType, GatedScan, Operand, ProblemError};

use crate::oracle::{Inputs, Outputs};

/// One file.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The file's stem.
    pub name: String,
    /// What was computed: `gated_scan`, `rg_lru`, `gated_ssm_layer`.
    pub kind: String,
    /// All of the file's metadata, the kind included.
    pub metadata: BTreeMap<String, String>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, GoldenTensor>,
}

/// One tensor, its values exact.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenTensor {
    /// The shape, outermost first.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub values: Vec<f64>,
}

/// Vectors that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The folder or a file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder holds no vectors.
    #[error("{path} holds no .safetensors file")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Not a safetensors file.
    #[error("{path}: {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A metadata entry is absent or makes no sense.
    #[error("{name}: metadata {key} is {got:?}")]
    Metadata {
        /// The vector.
        name: String,
        /// The entry.
        key: &'static str,
        /// What it holds.
        got: Option<String>,
    },
    /// A tensor is absent.
    #[error("{name} has no tensor {tensor}")]
    Missing {
        /// The vector.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape or type than the rest of the file asks for.
    #[error("{name}: tensor {tensor} is {got}, expected {expected}")]
    Tensor {
        /// The vector.
        name: String,
        /// The tensor.
        tensor: String,
        /// What it is.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// The options make no problem.
    #[error("{name}: {source}")]
    Problem {
        /// The vector.
        name: String,
        /// Why.
        source: ProblemError,
    },
}

/// A gated scan with its results.
#[derive(Clone, Debug)]
pub struct ScanVector {
    /// In float32 storage, with hT asked for.
    pub problem: GatedScan,
    /// Its inputs.
    pub inputs: Inputs,
    /// Its results. A tensor that the file lacks is empty.
    pub outputs: Outputs,
}

/// Where the vectors lie: `SSM_GOLDEN_DIR`, or the folder beside this crate's manifest.
pub fn folder() -> PathBuf {
    match std::env::var_os("SSM_GOLDEN_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"),
    }
}

/// Every vector of [`folder`], by name.
///
/// # Errors
///
/// [`GoldenError`]; an empty folder is one.
pub fn load() -> Result<Vec<Golden>, GoldenError> {
    load_from(&folder())
}

/// Every vector of a folder, by name.
///
/// # Errors
///
/// [`GoldenError`]; an empty folder is one.
pub fn load_from(dir: &Path) -> Result<Vec<Golden>, GoldenError> {
    let io = |source| GoldenError::Io { path: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(GoldenError::Empty { path: dir.to_owned() });
    }
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Golden, GoldenError> {
    let bytes = std::fs::read(path).map_err(|source| GoldenError::Io { path: path.to_owned(), source })?;
    let format = |source| GoldenError::Format { path: path.to_owned(), source };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let metadata: BTreeMap<String, String> =
        header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let Some(kind) = metadata.get("kind").cloned() else {
        return Err(GoldenError::Metadata { name, key: "kind", got: None });
    };
    let mut tensors = BTreeMap::new();
    for (tensor, view) in SafeTensors::deserialize(&bytes).map_err(format)?.tensors() {
        let data = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
            Dtype::U8 | Dtype::BOOL => data.iter().map(|b| f64::from(*b)).collect(),
            other => {
                let (got, expected) = (format!("{other:?}"), "a float or an integer".to_owned());
                return Err(GoldenError::Tensor { name, tensor, got, expected });
            }
        };
        tensors.insert(tensor, GoldenTensor { shape: view.shape().to_vec(), values });
    }
    Ok(Golden { name, kind, metadata, tensors })
}

impl Golden {
    /// A tensor that has to be there.
    ///
    /// # Errors
    ///
    /// [`GoldenError::Missing`].
    pub fn tensor(&self, tensor: &str) -> Result<&GoldenTensor, GoldenError> {
        let missing = || GoldenError::Missing { name: self.name.clone(), tensor: tensor.to_owned() };
        self.tensors.get(tensor).ok_or_else(missing)
    }

    /// The values of a tensor that has to be there in this shape.
    ///
    /// # Errors
    ///
    /// [`GoldenError::Missing`], [`GoldenError::Tensor`].
    pub fn shaped(&self, tensor: &str, shape: &[usize]) -> Result<&[f64], GoldenError> {
        let found = self.tensor(tensor)?;
        if found.shape != shape {
            return Err(GoldenError::Tensor {
                name: self.name.clone(),
                tensor: tensor.to_owned(),
                got: format!("{:?}", found.shape),
                expected: format!("{shape:?}"),
            });
        }
        Ok(&found.values)
    }

    /// The gated scan of a file of that kind.
    ///
    /// # Errors
    ///
    /// [`GoldenError`] when tensors or metadata are absent or do not fit together.
    pub fn scan(&self) -> Result<ScanVector, GoldenError> {
        let reverse = match self.metadata.get("reverse").map(|s| s.to_lowercase()) {
            None => false,
            Some(text) if text == "false" => false,
            Some(text) if text == "true" => true,
            got => return Err(GoldenError::Metadata { name: self.name.clone(), key: "reverse", got }),
        };
        let x = self.tensor("x")?;
        let [batch, len, d] = x.shape[..] else {
            return Err(GoldenError::Tensor {
                name: self.name.clone(),
                tensor: "x".to_owned(),
                got: format!("{:?}", x.shape),
                expected: "(B, L, D)".to_owned(),
            });
        };
        let has = |tensor: &str| self.tensors.contains_key(tensor);
        let mut builder = GatedScan::builder(batch, len, d)
            .b(has("b"))
            .c(has("c"))
            .initial_state(has("h0"))
            .final_state(true)
            .reverse(reverse);
        if let Some(cu) = self.tensors.get("cu_seqlens") {
            builder = builder.cu_seqlens(&cu.values.iter().map(|v| *v as usize).collect::<Vec<_>>());
        }
        let problem =
            builder.build().map_err(|source| GoldenError::Problem { name: self.name.clone(), source })?;
        let (full, state) = ([batch, len, d], [problem.sequences(), d]);
        let given = |tensor: &str, shape: &[usize]| {
            has(tensor).then(|| self.shaped(tensor, shape).map(<[f64]>::to_vec)).transpose()
        };
        let result = |tensor: &str, shape: &[usize]| given(tensor, shape).map(Option::unwrap_or_default);
        let dy = given("dy", &full)?;
        let inputs = Inputs {
            x: self.shaped("x", &full)?.to_vec(),
            a: self.shaped("a", &full)?.to_vec(),
            b: given("b", &full)?,
            c: given("c", &full)?,
            h0: given("h0", &state)?,
            dy: dy.unwrap_or_else(|| vec![0.0; batch * len * d]),
            d_final_state: given("dhT", &state)?,
        };
        let outputs = Outputs {
            y: self.shaped("y", &full)?.to_vec(),
            h: result("h", &full)?,
            g: Vec::new(),
            final_state: result("hT", &state)?,
            dx: result("dx", &full)?,
            da: result("da", &full)?,
            db: result("db", &full)?,
            dc: result("dc", &full)?,
            dh0: result("dh0", &state)?,
        };
        Ok(ScanVector { problem, inputs, outputs })
    }
}

impl ScanVector {
    /// The same problem over another storage type, its inputs rounded to it.
    ///
    /// # Errors
    ///
    /// [`ProblemError`] as from building it.
    pub fn stored(&self, dtype: DType) -> Result<(GatedScan, Inputs), ProblemError> {
        let problem = self.problem.to_builder().dtype(dtype).build()?;
        let inputs = self.inputs.rounded(&problem);
        Ok((problem, inputs))
    }

    /// The operands that the file has results for.
    pub fn results(&self) -> impl Iterator<Item = (Operand, &[f64])> {
        let all = [
            Operand::Y,
            Operand::FinalState,
            Operand::Dx,
            Operand::Da,
            Operand::Db,
            Operand::Dc,
            Operand::Dh0,
        ];
        all.into_iter().filter_map(|o| self.outputs.get(o).filter(|v| !v.is_empty()).map(|v| (o, v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_folder_is_an_error() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(matches!(load_from(&sources), Err(GoldenError::Empty { .. })));
        assert!(matches!(load_from(&sources.join("nowhere")), Err(GoldenError::Io { .. })));
    }
}
