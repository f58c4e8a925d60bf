//! Calls of the system's `kubectl`, each with a deadline.
//!
//! It decides how it is called. What is created goes over standard input, so that no secret is on a command line or a
//! disk; with `create`, not `apply`, which would keep a second copy of each secret in an annotation, and overwrite what
//! somebody else has made under the same name.

use super::manifest::INSTANCE;
use crate::launch::ask::{self, AskError};
use hallmark_profiles::site::Kubernetes;
use serde_json::Value;
use std::time::Duration;

const PROGRAM: &str = "kubectl";
/// Longest wait for an answer, and for one of the cluster within it.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: &str = "--request-timeout=15s";

/// The objects of one run, in its cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// Context and namespace.
    options: Vec<String>,
    selector: String,
    kinds: String,
}

impl Kubectl {
    /// Of the run whose objects are called `name`.
    pub fn new(asked: &Kubernetes, name: &str, kinds: String) -> Self {
        let mut options = vec![REQUEST.to_owned()];
        options.extend(asked.context.iter().map(|c| format!("--context={c}")));
        options.extend(asked.namespace.iter().map(|n| format!("--namespace={n}")));
        Self {
            options,
            selector: format!("--selector={INSTANCE}={name}"),
            kinds,
        }
    }

    /// Of no run: to ask for what the cluster has.
    pub fn of_cluster(asked: &Kubernetes) -> Self {
        Self::new(asked, "", String::new())
    }

    fn ask(&self, words: &[&str], input: Option<&[u8]>) -> Result<String, AskError> {
        let options = self.options.iter().map(String::as_str);
        let arguments: Vec<&str> = words.iter().copied().chain(options).collect();
        ask::ask(PROGRAM, &arguments, input, PATIENCE)
    }

    /// Creates an object that holds no secret; gives it as the cluster has it.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn create(&self, object: &Value) -> Result<Value, AskError> {
        let input = object.to_string();
        let told = self.ask(
            &["create", "--filename=-", "--output=json"],
            Some(input.as_bytes()),
        )?;
        serde_json::from_str(&told).map_err(|_| AskError::Failed {
            program: PROGRAM.to_owned(),
            why: "what it has created is not in its answer".to_owned(),
        })
    }

    /// Creates objects that may hold secrets, of which kubectl says the names alone.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn create_quietly(&self, objects: &Value) -> Result<(), AskError> {
        let input = objects.to_string();
        let words = ["create", "--filename=-", "--output=name"];
        self.ask(&words, Some(input.as_bytes())).map(|_| ())
    }

    /// The run's pods, in JSON.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn pods(&self) -> Result<String, AskError> {
        self.ask(&["get", "pods", &self.selector, "--output=json"], None)
    }

    /// The cluster's nodes, in JSON.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn nodes(&self) -> Result<String, AskError> {
        self.ask(&["get", "nodes", "--output=json"], None)
    }

    /// Removes all that bears the run's label; the cluster ends its pods.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn delete(&self) -> Result<(), AskError> {
        let words = self.delete_words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ask(&words, None).map(|_| ())
    }

    fn delete_words(&self) -> Vec<String> {
        let words = [
            "delete",
            &self.kinds,
            &self.selector,
            "--wait=false",
            "--ignore-not-found=true",
        ];
        words.map(str::to_owned).into()
    }

    /// The command by which a person removes it.
    pub fn by_hand(&self) -> String {
        let options = self.options.iter().filter(|o| *o != REQUEST).cloned();
        let words: Vec<String> = std::iter::once(PROGRAM.to_owned())
            .chain(self.delete_words())
            .chain(options)
            .collect();
        words.join(" ")
    }
}
