//! Waiting for the device, without an executor of our own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use wgpu::{Buffer, Device, MapMode};

use crate::WgpuError;
use crate::device::lock;

/// Milliseconds to wait for an answer after the device has fallen idle.
#[cfg(not(target_arch = "wasm32"))]
const PATIENCE: u32 = 10_000;

/// Runs a future to its end on this thread, parked in between.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[derive(Debug, Default)]
struct Mapping {
    result: Option<Result<(), WgpuError>>,
    waker: Option<Waker>,
}

#[cfg(not(target_arch = "wasm32"))]
impl Mapping {
    /// Settles on a failure, unless there is an answer already.
    fn fail(&mut self, reason: String) {
        self.result.get_or_insert(Err(WgpuError::ReadBack { reason }));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A buffer on its way to being readable by the host.
#[derive(Debug)]
pub(crate) struct Mapped(Arc<Mutex<Mapping>>);

impl Mapped {
    /// Asks for the whole buffer. Off the web somebody has to poll the device for the answer to come: a thread that
    /// sleeps in the driver does, so that neither the caller nor the caller's executor has to.
    pub(crate) fn request(device: &Device, buffer: &Buffer) -> Self {
        let mapping = Arc::new(Mutex::new(Mapping::default()));
        let answer = Arc::clone(&mapping);
        buffer.map_async(MapMode::Read, .., move |result| {
            let mut mapping = lock(&answer);
            let failed = |error: wgpu::BufferAsyncError| WgpuError::ReadBack { reason: error.to_string() };
            mapping.result.get_or_insert(result.map_err(failed));
            if let Some(waker) = mapping.waker.take() {
                waker.wake();
            }
        });
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (device, answer) = (device.clone(), Arc::clone(&mapping));
            let poll = move || {
                // Another thread's poll may have taken the answer and not handed it over yet: ask again.
                for _ in 0..PATIENCE {
                    if let Err(error) = device.poll(wgpu::PollType::wait_indefinitely()) {
                        return lock(&answer).fail(error.to_string());
                    }
                    if lock(&answer).result.is_some() {
                        return;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                lock(&answer).fail("the device is idle and never answered".to_owned());
            };
            if let Err(error) = std::thread::Builder::new().spawn(poll) {
                lock(&mapping).fail(format!("no thread to wait in: {error}"));
            }
        }
        #[cfg(target_arch = "wasm32")]
        let _ = device;
        Self(mapping)
    }
}

impl Future for Mapped {
    type Output = Result<(), WgpuError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut mapping = lock(&self.0);
        match &mapping.result {
            Some(result) => Poll::Ready(result.clone()),
            None => {
                mapping.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
