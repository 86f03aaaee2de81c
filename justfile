# Recipes for `just`. CI needs none of them: it runs .ci/run.

# List the recipes
default:
    @just --list

# Everything that CI runs
ci:
    .ci/run

# Run the examples of README and the guides; `just guides bless` puts what was seen into them
guides mode="":
    JLOG_GUIDES={{mode}} cargo test -p jlog-tests --locked --test guides

# Build and test with the minimum version of Rust
msrv:
    cargo +1.90 test --workspace --locked

# Fuzz every target for so many seconds
fuzz seconds="600":
    cd fuzz && for target in $(cargo fuzz list); do \
        cargo fuzz run "$target" -- -max_total_time={{seconds}} || exit 1; done

# Licences, advisories and duplicates of dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# Every combination of features builds (needs cargo-hack)
features:
    cargo hack check -p logdag --lib --feature-powerset --exclude-features shuttle
    cargo hack check -p jlog-core --lib --feature-powerset --exclude-features shuttle
    cargo hack check -p jlog-ship -p jlog-watch -p jlog-cli --each-feature --exclude-features kafka,kafka-ssl

# The declared versions of dependencies are not too low (needs cargo-hack and a nightly toolchain)
minimal-versions:
    # In a copy of the last commit: this changes the lock file and every manifest.
    rm -rf target/minimal && git worktree prune && git worktree add --detach target/minimal
    cd target/minimal && cargo hack --remove-dev-deps --workspace && \
        cargo +nightly update -Z direct-minimal-versions && \
        cargo check --workspace --target-dir ../minimal-versions
    git worktree remove --force target/minimal

# Changes of the API since the last release (needs cargo-semver-checks)
semver:
    cargo semver-checks -p jlog-core -p jlog-ship -p jlog-watch -p logdag -p logdag-logline

# Package every published crate, and build each from its package
package:
    .ci/package
