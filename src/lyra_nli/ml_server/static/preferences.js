// What this browser remembers: the reviewer's name, the order, the theme.

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

// A browser may forbid storage: then everything is asked each time.

export function recall(name) {
  try {
    return localStorage.getItem(`lyra-nli.${name}`);
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`lyra-nli.${name}`, value);
  } catch {
    // the page works without
  }
}

/** Show the theme that was chosen, and let a button go through them. */
export function startTheme(button) {
  const names = Object.keys(THEMES);
  let chosen = names.includes(recall("theme")) ? recall("theme") : "auto";
  const show = () => {
    const [sign, words] = THEMES[chosen];
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.textContent = sign;
    button.title = button.ariaLabel = `Theme: ${words}`;
  };
  button.addEventListener("click", () => {
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    keep("theme", chosen);
    show();
  });
  show();
}
