//! What a verb knows of its request, and the world it runs in.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;

use super::strategy::RequestFacts;
use crate::identity::Identity;

/// Clock and randomness, passed in so that tests can hold them.
pub trait Environment: Send + Sync + 'static {
    /// Time since the epoch.
    fn now(&self) -> Duration;

    /// A new random uid.
    fn uid(&self) -> String;

    /// `length` characters of Kubernetes' alphabet for generated names.
    fn suffix(&self, length: usize) -> String;
}

/// The machine's clock and randomness.
#[derive(Debug, Default)]
pub struct Machine;

/// No vowels and no characters that look alike. Source: `k8s.io/apimachinery/pkg/util/rand`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Environment for Machine {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn suffix(&self, length: usize) -> String {
        let mut rng = rand::rng();
        (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
    }
}

/// What a client wants done with fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// The longest name of a field manager. Source: `FieldManagerMaxLength`.
const MAX_MANAGER_BYTES: usize = 128;

/// One request, as the verbs see it.
#[derive(Debug)]
pub struct Context {
    /// Who asks.
    pub identity: Identity,
    /// When, in seconds since the epoch.
    pub now_unix_seconds: i64,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// Who is to own the fields that are set; empty if not said.
    pub field_manager: String,
    /// What the client calls itself; empty if nothing.
    pub user_agent: String,
    /// What to do with unknown fields.
    pub field_validation: FieldValidation,
    warnings: Mutex<Vec<String>>,
}

impl Context {
    /// A request at a time by somebody.
    pub fn new(identity: Identity, now: Duration) -> Self {
        Self {
            identity,
            now_unix_seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            dry_run: false,
            field_manager: String::new(),
            user_agent: String::new(),
            field_validation: FieldValidation::default(),
            warnings: Mutex::new(Vec::new()),
        }
    }

    /// Who comes to own what is written: as the client says, else as its `User-Agent` begins. A component that does not say
    /// what it is has the name that its part of Kubernetes has.
    pub fn manager(&self) -> String {
        if !self.field_manager.is_empty() {
            return self.field_manager.clone();
        }
        if self.user_agent.is_empty() {
            let user = self.identity.user.as_str();
            return match user.strip_prefix("system:") {
                Some(component) if component.starts_with("kube-") => component.to_owned(),
                Some(component) if component.starts_with("node:") => "kubelet".to_owned(),
                Some(_) => "kube-apiserver".to_owned(),
                None => "unknown".to_owned(),
            };
        }
        let name = self.user_agent.split('/').next().unwrap_or_default();
        let mut manager = String::new();
        for character in name.chars().filter(|character| !character.is_control()) {
            if manager.len() + character.len_utf8() > MAX_MANAGER_BYTES {
                break;
            }
            manager.push(character);
        }
        manager
    }

    /// What a strategy may know.
    pub fn facts(&self) -> RequestFacts {
        RequestFacts {
            user: self.identity.user.clone(),
            now_unix_seconds: self.now_unix_seconds,
            dry_run: self.dry_run,
        }
    }

    /// Says something to the client beside the answer; said twice it is sent once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// What was said so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
