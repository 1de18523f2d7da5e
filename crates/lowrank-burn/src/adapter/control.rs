//! The state that all parameters of an adapted model, and its clones, share.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use burn::module::ParamId;
use lowrank::Error;
use lowrank::init::Moments;

use super::Mixed;

/// A handle to the shared state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: RwLock<State>,
    /// How often the state was opened to be changed.
    revision: AtomicU64,
}

/// Which adapters are in force.
#[derive(Debug)]
pub(crate) struct State {
    /// Names, in the order in which their changes are applied.
    pub active: Vec<String>,
    /// Off while adapters are disabled as a whole.
    pub enabled: bool,
    /// On while the base is being taken out from under the adapters.
    pub bypassed: bool,
    /// Names whose change is in the base already, in the order in which they were merged.
    pub merged: Vec<String>,
    /// Tensors of the base as they were before anything was merged into them, where something is.
    pub originals: HashMap<ParamId, Arc<dyn Any + Send + Sync>>,
    /// Factors on the adapters' own scales; 1 where there is none.
    pub multipliers: BTreeMap<String, f32>,
    /// A factor on all of them.
    pub rescaled: f32,
    /// Whose change each sample sees, where it is not the active adapters'.
    pub mixed: Option<Arc<Mixed>>,
    /// The first parameter that could not be read sample by sample, and why.
    pub refused: Option<(ParamId, Error)>,
    /// What the inputs of modules look like, by the `A` on them, while they are observed; all adapters are off meanwhile.
    pub observed: Option<HashMap<ParamId, Moments>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            active: Vec::new(),
            enabled: true,
            bypassed: false,
            merged: Vec::new(),
            originals: HashMap::new(),
            multipliers: BTreeMap::new(),
            rescaled: 1.0,
            mixed: None,
            refused: None,
            observed: None,
        }
    }
}

impl State {
    /// Whether parameters are read with changes at all.
    pub fn is_on(&self) -> bool {
        self.enabled && !self.bypassed && self.observed.is_none()
    }

    /// The factor on an adapter's own scale.
    pub fn multiplier(&self, name: &str) -> f32 {
        self.multipliers.get(name).copied().unwrap_or(1.0) * self.rescaled
    }
}

impl Control {
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        let guard = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        self.0.revision.fetch_add(1, Ordering::Release);
        guard
    }

    /// A number that is another one after every change.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Runs `work` with another value in a field, which has its own again afterwards, also when `work` panics.
    pub fn with<V, T>(&self, field: fn(&mut State) -> &mut V, value: V, work: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(field(&mut self.write()), value);
        let _restored = Restore { control: self, field, before: Some(before) };
        work()
    }
}

struct Restore<'a, V> {
    control: &'a Control,
    field: fn(&mut State) -> &mut V,
    before: Option<V>,
}

impl<V> Drop for Restore<'_, V> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            *(self.field)(&mut self.control.write()) = before;
        }
    }
}
