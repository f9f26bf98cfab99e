//! bert-model
