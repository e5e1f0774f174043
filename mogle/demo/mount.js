// The painter inside gr.HTML: gradio gives `element`, `props` and `watch`.
const root = element.querySelector(".mogle-painter-root");

import(new URL("mogle/painter.js", document.baseURI).href).then(
  ({ mount, pack, unpack }) => {
    const painter = mount(root, {
      ...unpack(props.value),
      classes: props.classes,
      onChange: (state) => {
        props.value = pack(state);
      },
    });
    watch("value", () => {
      const { labels, width, height } = unpack(props.value);
      painter.set(labels, width, height);
    });
  },
  (error) => {
    root.textContent = `The painter cannot be loaded (${error}); masks can still be opened from files.`;
  },
);
