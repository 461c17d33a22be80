"""The tools by which an assistant gives feedback, over the Model Context Protocol."""
