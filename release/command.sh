# The command, with its man pages and shell completions. build.sh sources this file.

command_name=ringload-$version-$triple

# A test makes the pages and completions: src/bin/ringload/manual.rs. `tests/run.sh --full` has compiled
# it with the same arguments.
write_manual() {
    empty_directory "$work/manual"
    RINGLOAD_MANUAL_DIR=$work/manual RINGLOAD_MANUAL_DATE=$(git log -1 --format=%cs) \
        cargo test --quiet --locked --workspace --features capi --bin ringload manual:: >/dev/null
    [[ -s $work/manual/ringload.1 ]] || fail "no manual was written"
}

# The folders are those of /usr/local: `tar -C /usr/local --strip-components=1 -xf ...` installs it.
package_command() {
    local root=$work/$command_name
    empty_directory "$root"
    install -D --mode=755 --target-directory="$root/bin" "$binaries/ringload"
    strip --strip-debug "$root/bin/ringload"
    install -D --mode=644 --target-directory="$root/share/man/man1" "$work"/manual/*.1
    install -D --mode=644 "$work/manual/ringload.bash" \
        "$root/share/bash-completion/completions/ringload"
    install -D --mode=644 --target-directory="$root/share/zsh/site-functions" \
        "$work/manual/_ringload"
    install -D --mode=644 --target-directory="$root/share/fish/vendor_completions.d" \
        "$work/manual/ringload.fish"
    copy_documentation "$root" share/doc/ringload
    pack "$root"
}

test_command() {
    local root=$work/test/$command_name
    empty_directory "$work/test"
    tar --extract --directory "$work/test" --file "$packages/$command_name.tar.gz"
    check_glibc "$root/bin/ringload"
    write_checkpoint "$work/test/model/model.safetensors"
    in_empty_environment "$root/bin/ringload" load "$work/test/model"
    [[ $(in_empty_environment "$root/bin/ringload" --version) == "ringload $version" ]] ||
        fail "the command has another version"
    test_man_pages "$root"
    test_completions "$root"
}

# Every page is formatted without a warning, by each formatter that is installed.
test_man_pages() {
    local page warnings
    for page in "$1"/share/man/man1/*.1; do
        if command -v man >/dev/null; then
            warnings=$(in_empty_environment MANROFFSEQ='' MANWIDTH=80 \
                man --warnings -l "$page" 2>&1 >/dev/null)
            [[ -z $warnings ]] || fail "man: $page: $warnings"
        fi
        if command -v mandoc >/dev/null; then
            mandoc -T lint -W warning "$page"
        fi
    done
}

test_completions() {
    # shellcheck disable=SC2016
    in_empty_environment bash --norc -euc '
        source "$1"
        words=$(complete -p ringload)
        [[ $words =~ -F\ ([^ ]+) ]]
        COMP_WORDS=(ringload lo) COMP_CWORD=1
        "${BASH_REMATCH[1]}" ringload lo ringload
        [[ " ${COMPREPLY[*]} " == *" load "* ]]
    ' bash "$1/share/bash-completion/completions/ringload" || fail "bash does not complete ringload lo"
    if command -v zsh >/dev/null; then
        in_empty_environment zsh -f -n "$1/share/zsh/site-functions/_ringload"
    fi
    if command -v fish >/dev/null; then
        # shellcheck disable=SC2016
        [[ $(in_empty_environment fish --no-config -c 'source $argv; complete -C "ringload lo"' \
            "$1/share/fish/vendor_completions.d/ringload.fish") == load* ]] ||
            fail "fish does not complete ringload lo"
    fi
}
