//! The testkit's own plain loop: the suite has to accept it.

use std::sync::Arc;

use ssm_testkit::ReferenceHarness;

pub(crate) fn open() -> Result<Arc<ReferenceHarness>, String> {
    Ok(Arc::new(ReferenceHarness::default()))
}
